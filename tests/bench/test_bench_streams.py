"""Streams in the benches: scripted speech, paced threads, throughput's search, the soak."""

import numpy as np
import pytest
from random_whisper import random_model
from tiny_data import write_wav

from streamer.bench import soak, throughput
from streamer.bench.clock import run_streams
from streamer.bench.scripted import ScriptedEngine, lively_speech, settings
from streamer.bench.speech_scores import read_captions
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Word
from streamer.measure.recordings import Recording
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings


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
    found = read_captions([(event, event.audio_t) for event in events])
    places = [engine.places_by_word[word.text] for word in found.words]
    assert places == list(range(len(spoken.ends)))
    assert found.retractions == 0


def test_paced_streams_share_the_worker_and_end():
    spoken = lively_speech(1.0)
    model = random_model(0)
    engine = ScriptedEngine(model, spoken)
    heard = run_streams(engine, settings(), [spoken.samples[: 2 * SAMPLE_RATE]] * 2)
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


def test_a_soak_runs_on_one_clock_and_draws():
    audio = lively_speech(4.0).samples
    result = soak.measure(random_model(0), Settings(), audio, 12.2 / 3600)
    assert len(result["rows"]) == round(12.2 * SAMPLE_RATE / (len(audio) // 8000 * 8000))
    assert result["rows"][-1]["passes_per_hop"] <= 1
    assert "hours of audio" in soak.report(result).markdown()


def words_at(*places):
    return [Word(text, start, start + 0.1, 0.9) for text, start in places]


def test_drift_is_how_far_words_move_from_the_second_loop_on():
    drift = soak.Drift(10.0)
    drift.add(words_at(("odd", 1.0), ("a", 11.0), ("b", 12.0)))
    drift.add(words_at(("a", 21.25), ("b", 22.25), ("a", 31.5), ("x", 31.75), ("b", 32.5), ("a", 41.75), ("b", 43.0)))
    found = drift.finish()
    assert found["words"] == 10
    assert (found["words_matched_in_last_loop"], found["word_drift_median_s"], found["word_drift_largest_s"]) == (
        2,
        0.875,
        1.0,
    )
    slope = np.polyfit([20 / 3600, 30 / 3600, 40 / 3600], [0.25, 0.5, 0.875], 1)[0]
    assert found["word_drift_s_per_audio_hour"] == pytest.approx(slope, abs=1e-3)


def test_before_the_third_loop_there_is_no_drift():
    drift = soak.Drift(10.0)
    drift.add(words_at(("a", 1.0), ("a", 11.0)))
    assert drift.finish()["word_drift_median_s"] is None


def test_changes_compare_the_end_with_the_beginning():
    rows = [
        {"audio_h": n / 10, "ms_per_hop": 10.0 + n, "cpu_ms_per_hop": 10.0, "rss_mib": 100.0 + 5 * n} for n in range(10)
    ]
    found = soak.changes(rows)
    assert found["ms_per_hop_late_over_early"] == round(18.5 / 12.5, 3)
    assert found["cpu_ms_per_hop_per_audio_hour"] == pytest.approx(0.0, abs=1e-6)
    assert found["rss_mib_per_audio_hour"] == pytest.approx(50.0)


def test_speech_is_looped_one_recording_of_each_set_in_turn(tmp_path):
    def recording(name, part, level):
        write_wav(tmp_path / name, np.full(16_000, level))
        return Recording(name, tmp_path / name, part, "en", "x")

    said = [recording("a.wav", "one", 0.1), recording("b.wav", "one", 0.2), recording("c.wav", "two", 0.3)]
    quiet = Recording("none.wav", tmp_path / "none.wav", "sounds/x", None, "")
    loop = soak.speech_loop([quiet, *said], 100.0)
    assert [round(float(loop[at * 32_000 + 8_000]), 2) for at in range(3)] == [0.1, 0.3, 0.2]
    assert len(soak.speech_loop(said, 3.0)) == 48_000
    with pytest.raises(InputError, match="no recording has a text"):
        soak.speech_loop([quiet], 3.0)


def test_a_bench_never_lets_the_hop_grow():
    assert settings().window.hop_max_s == settings().window.hop_s


def test_streams_of_peoples_speech_are_counted_on_a_real_model():
    found = throughput.measure_spoken(throughput.SpokenPlan("nano", seconds=6.0, most=1))
    [row] = found["trials"]
    assert row["streams"] == 1
    assert row["passes_per_stream_second"] > 1
    assert "nano" in throughput.spoken_report(found).markdown()
