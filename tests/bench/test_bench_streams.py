"""Streams in the benches: paced threads, throughput's search, the soak."""

import numpy as np
import pytest
from random_whisper import random_model
from tiny_data import write_wav

from streamer.audio.files import demo_path, read_audio
from streamer.bench import soak, throughput
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Transcript, Word
from streamer.measure.recordings import Recording
from streamer.model.engine import Engine
from streamer.settings.config import Settings


def speech(seconds):
    """The beginning of the bundled demo of two readers, float32 [n]."""
    return read_audio(demo_path("voices"))[: round(seconds * SAMPLE_RATE)]


def test_paced_streams_share_the_worker_and_end():
    engine = Engine(random_model(0, ending=10.0))
    heard = throughput.run_streams(engine, throughput.fixed_hop(Settings()), [speech(2)] * 2)
    assert [one[-1][0].state for one in heard] == ["stopped", "stopped"]
    assert all(at >= event.audio_t - 0.2 for one in heard for event, at in one)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 8, 11, 16])
def test_the_largest_number_of_streams_is_found(limit):
    tried = []

    def attempt(count):
        tried.append(count)
        return {"streams": count, "commit_p95_s": 1.0, "carried": count <= limit}

    rows = throughput.carried(attempt, 16)
    assert max((row["streams"] for row in rows if row["carried"]), default=0) == limit
    assert len(tried) == len(set(tried)) <= 9


def test_each_committed_word_is_told_once():
    def said(at, *texts, final=False):
        words = tuple(Word(text, place, place + 0.4, 0.9) for place, text in enumerate(texts))
        event = Transcript(
            session="s", seq=1, audio_t=at, segment=1, start=0.0, end=at, text=" ".join(texts), partial="",
            final=final, words=words, language="en", speech_probability=0.9,
        )  # fmt: skip
        return event, at + 0.1

    heard = [said(1.0, "one"), said(2.0, "one", "two"), said(3.0, "one", "two", final=True)]
    assert [(word.word, at) for word, at in throughput.committed_words(heard)] == [("one", 1.1), ("two", 2.1)]


def test_a_soak_runs_on_one_clock_and_draws():
    audio = speech(4.0)
    result = soak.measure(random_model(0, ending=10.0), Settings(), audio, 12.2 / 3600)
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
    assert throughput.fixed_hop(Settings()).window.hop_max_s == Settings().window.hop_s


def test_streams_of_peoples_speech_are_counted_on_a_real_model():
    found = throughput.measure(throughput.Plan("nano", seconds=6.0, most=1))
    [row] = found["trials"]
    assert row["streams"] == 1
    assert row["passes_per_stream_second"] > 1
    assert "nano" in throughput.report(found).markdown()
