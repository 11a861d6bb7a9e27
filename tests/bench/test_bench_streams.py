"""Streams in the benches: scripted speech, paced threads, throughput's search, the soak."""

import numpy as np
import pytest
from random_whisper import random_model

from streamer.bench import quality, soak, throughput
from streamer.bench.captions import read
from streamer.bench.paced import run_streams
from streamer.bench.script import ScriptedEngine, lively_speech, settings
from streamer.config import Settings
from streamer.events import SAMPLE_RATE
from streamer.runtime.stream import Stream


def test_lively_speech_is_lively():
    spoken = lively_speech(12.0)
    assert spoken.samples.dtype == np.float32
    assert len(spoken.samples) >= 12 * SAMPLE_RATE
    assert all(start < end for start, end in zip(spoken.starts, spoken.ends, strict=True))
    assert all(end <= start for end, start in zip(spoken.ends, spoken.starts[1:], strict=False))
    assert len(spoken.ends) / 12 > 1.5


def test_a_scripted_engine_hears_every_word_in_order_whatever_the_weights():
    spoken = lively_speech(14.0)
    model = random_model(0)
    stream = Stream(model, settings())
    engine = ScriptedEngine(model, spoken)
    stream._engine = engine
    events = stream.push(spoken.samples) + stream.finish()
    found = read([(event, event.audio_t) for event in events])
    places = [engine.places_by_word[word.word] for word in found.words]
    assert places == list(range(len(spoken.ends)))
    assert found.retractions == 0


def test_paced_streams_share_the_worker_and_end():
    spoken = lively_speech(1.0)
    model = random_model(0)
    engine = ScriptedEngine(model, spoken)
    heard = run_streams(engine, settings(), spoken.samples[: 2 * SAMPLE_RATE], 2)
    assert [one.events[-1][0].state for one in heard] == ["stopped", "stopped"]
    assert all(at >= event.audio_t - 0.2 for one in heard for event, at in one.events)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 8, 11, 16])
def test_the_largest_number_of_streams_is_found(limit):
    tried = []

    def attempt(count):
        tried.append(count)
        return {"streams": count, "commit_p95_s": 1.0, "carried": count <= limit}

    rows = throughput.carried(attempt, 16)
    assert max((row["streams"] for row in rows if row["carried"]), default=0) == limit
    assert len(tried) == len(set(tried)) <= 9


def test_commit_latency_is_taken_once_for_each_word():
    spoken = lively_speech(6.0)
    model = random_model(0)
    engine = ScriptedEngine(model, spoken)
    stream = Stream(model, settings())
    stream._engine = engine
    events = stream.push(spoken.samples) + stream.finish()
    heard = throughput.Heard([(event, event.audio_t) for event in events])
    latencies = throughput.commit_latencies(heard, spoken, engine.places_by_word)
    assert len(latencies) == len(spoken.ends)
    assert all(-0.1 < value < 3 for value in latencies)


def test_rates_are_measured_for_every_batch():
    model = random_model(0)
    assert set(throughput.decoder_rates(model, 1, (1, 2))) == {"1", "2"}
    hops = throughput.hop_rates(model, "fit", 1, (1, 2))
    assert hops["2"]["batched"] > 0
    assert hops["2"]["one_after_the_other"] > 0


def test_a_soak_runs_on_one_clock_and_draws(tmp_path):
    audio = lively_speech(4.0).samples
    result = soak.measure(random_model(0), Settings(), audio, 12.2 / 3600)
    assert len(result["rows"]) == round(12.2 * SAMPLE_RATE / (len(audio) // 8000 * 8000))
    assert result["rows"][-1]["passes_per_hop"] <= 1
    assert "hours of audio" in soak.report(result).markdown()


def test_the_ablation_runs_all_guards_none_and_each_alone():
    sets = quality.guard_sets()
    alone = quality.with_guards(Settings(), sets["loops"]).guards
    assert (alone.loops, alone.budget, alone.silence) == (True, False, False)
    assert quality.with_guards(Settings(), sets["all"]) == Settings()
    assert not any(getattr(quality.with_guards(Settings(), []).guards, name) for name in quality.switchable_guards())
    assert len(sets) == len(quality.switchable_guards()) + 2


def test_quality_reports_both_policies_on_scenes(tmp_path):
    import av

    speech = lively_speech(3.0)
    for name, samples in (("talk_0", speech.samples), ("quiet_0", speech.samples[:SAMPLE_RATE] * 0)):
        with av.open(str(tmp_path / f"{name}.flac"), "w") as file:
            track = file.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
            frame.rate = SAMPLE_RATE
            for packet in [*track.encode(frame), *track.encode(None)]:
                file.mux(packet)
        words = [
            f'{{"word": "word", "start": {start / SAMPLE_RATE}, "end": {end / SAMPLE_RATE}}}'
            for start, end in zip(speech.starts, speech.ends, strict=True)
        ]
        said = ", ".join(words) if name == "talk_0" else ""
        (tmp_path / f"{name}.json").write_text(f'{{"words": [{said}], "events": []}}')
    result = quality.measure(random_model(0), Settings(), quality.find_scenes(tmp_path))
    assert set(result["policies"]) == {"agreement", "alignatt"}
    assert result["policies"]["alignatt"]["summary"]["retractions"] == 0
    assert "all" in result["guards"]["agreement"]
    page = quality.report(result).markdown()
    assert "| agreement |" in page
    assert "offline_wer" in page
    [peer] = result["peers"].values()
    assert "absent" in peer or peer["summary"]["retractions"] == 0


def test_a_bench_never_lets_the_hop_grow():
    assert settings().window.hop_max_s == settings().window.hop_s
