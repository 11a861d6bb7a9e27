import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.conditioning import Conditioner
from streamer.events import FRAME_SAMPLES
from streamer.events.plans import Report, Trouble


def run(samples: np.ndarray, conditioner: Conditioner | None = None) -> tuple[np.ndarray, list[Report]]:
    conditioner = conditioner or Conditioner()
    out, reports = [], []
    for at in range(0, len(samples) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        frame, found = conditioner.step(samples[at : at + FRAME_SAMPLES])
        out.append(frame)
        reports += found
    return np.concatenate(out), reports + list(conditioner.finish())


def speechlike(seconds: float, level: float = 0.2) -> np.ndarray:
    """Noise whose loudness comes and goes, without offset."""
    count = round(seconds * 50) * FRAME_SAMPLES
    loudness = level * (0.1 + np.abs(np.sin(np.arange(count) / 16_000 * 5)))
    return (np.random.default_rng(5).uniform(-1, 1, count) * loudness).astype(np.float32)


def test_sound_with_nothing_wrong_passes_bit_for_bit():
    sound = speechlike(10)
    conditioner = Conditioner()
    frame = sound[:FRAME_SAMPLES]
    assert conditioner.step(frame)[0] is frame
    out, reports = run(sound)
    assert np.array_equal(out, sound)
    assert reports == []


def test_nan_and_infinity_become_zeros_with_their_exact_place():
    sound = speechlike(3)
    broken = sound.copy()
    broken[1_000] = np.nan
    broken[5_000:6_000] = np.inf
    broken[6_100] = -np.inf
    out, reports = run(broken)
    bad = ~np.isfinite(broken)
    assert np.array_equal(out, np.where(bad, 0, sound))
    assert [(report.start_sample, report.end_sample, report.samples) for report in reports] == [
        (1_000, 1_001, 1),
        (5_000, 6_101, 1_001),
    ]
    assert {report.trouble for report in reports} == {Trouble.NOT_FINITE}


def test_a_long_stretch_of_nan_is_told_second_by_second_and_at_the_end():
    _, reports = run(np.full(16_000 * 3 + 640, np.nan, np.float32))
    assert [(report.start_sample, report.end_sample) for report in reports] == [
        (0, 16_000),
        (16_000, 32_000),
        (32_000, 48_000),
        (48_000, 48_640),
    ]


def test_a_small_offset_is_taken_out_and_is_no_news():
    out, reports = run(speechlike(10) - np.float32(0.014))
    assert reports == []
    assert abs(out[16_000 * 6 :].mean()) < 0.002


def test_a_constant_offset_is_taken_out_smoothly_and_told_once():
    sound = speechlike(20)
    out, reports = run(sound + np.float32(0.08))
    assert [report.trouble for report in reports] == [Trouble.DC_OFFSET]
    assert "+0.080" in reports[0].detail
    assert reports[0].end_sample == 32_000
    residue = out - sound
    assert residue[:31_680] == pytest.approx(0.08, abs=1e-6)
    assert np.abs(residue[-80_000:]).max() < 0.005
    assert np.abs(np.diff(residue.astype(np.float64))).max() < 1e-4  # no step anywhere


def test_when_the_offset_goes_sound_is_left_alone_again():
    sound = speechlike(30)
    shifted = sound.copy()
    shifted[: 16_000 * 10] += np.float32(0.05)
    out, reports = run(shifted)
    assert len(reports) == 1
    assert np.array_equal(out[16_000 * 20 :], sound[16_000 * 20 :])


@pytest.mark.parametrize("offset", [0.0, 0.005, 0.009, -0.009])
def test_a_small_offset_is_left_alone(offset):
    sound = speechlike(10, 0.1) + np.float32(offset)
    out, reports = run(sound)
    assert np.array_equal(out, sound)
    assert reports == []


def test_a_thump_or_rumble_is_no_offset():
    seconds = np.arange(16_000 * 10) / 16_000
    rumble = (0.2 * np.sin(2 * np.pi * 0.4 * seconds)).astype(np.float32)
    assert run(rumble)[1] == []
    thump = speechlike(10)
    thump[48_000:56_000] += np.float32(0.5)
    assert [report for report in run(thump)[1] if report.trouble is Trouble.DC_OFFSET] == []


def test_digital_silence_stays_silence_beside_an_offset():
    sound = speechlike(10) + np.float32(0.1)
    sound[16_000 * 6 : 16_000 * 8] = 0
    out, _ = run(sound)
    assert not out[16_000 * 6 : 16_000 * 8].any()


def test_clipping_is_told_once_per_episode():
    loud = np.clip(3 * np.sin(2 * np.pi * 200 * np.arange(16_000 * 3) / 16_000), -1, 1).astype(np.float32)
    sound = np.concatenate([speechlike(2), loud, speechlike(2), loud, speechlike(1)])
    out, reports = run(sound)
    assert np.array_equal(out, sound)
    assert [report.trouble for report in reports] == [Trouble.CLIPPING] * 2
    assert 32_000 <= reports[0].start_sample < 32_100
    assert reports[0].start_sample < reports[0].end_sample <= 32_000 + 2 * FRAME_SAMPLES
    assert 16_000 * 7 <= reports[1].start_sample < 16_000 * 7 + 100


def test_single_peaks_at_full_scale_are_no_clipping():
    sound = speechlike(10)
    sound[::4_000] = 1.0
    sound[1::8_000] = 1.0
    assert run(sound)[1] == []


def test_more_than_full_scale_is_clamped_and_told():
    sound = (20_000 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000)).astype(np.float32)
    out, reports = run(sound)
    assert np.array_equal(out, np.clip(sound, -1, 1))
    assert len(reports) == 1
    assert "peak 2e+04" in reports[0].detail


def test_a_run_across_frames_counts_whole():
    sound = speechlike(1)
    edge = 10 * FRAME_SAMPLES
    sound[edge - 2 : edge + 30] = -1.0
    reports = run(sound)[1]
    assert [(report.start_sample, report.end_sample, report.samples) for report in reports] == [
        (edge - 2, edge + 30, 32)
    ]


values = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 0.9999, float("nan"), float("inf"), float("-inf"), 3e38, -5.0, 0.02]),
    st.floats(-2, 2, width=32),
)


@given(st.lists(st.tuples(values, st.integers(1, 700)), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_whatever_comes_in_what_goes_out_is_finite_and_within_full_scale(runs, seed):
    sound = np.concatenate([np.full(count, value, np.float32) for value, count in runs])
    sound = sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES]
    if not len(sound):
        return
    out, reports = run(sound)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 1
    not_finite = [report for report in reports if report.trouble is Trouble.NOT_FINITE]
    assert sum(report.samples for report in not_finite) == np.count_nonzero(~np.isfinite(sound))
    covered = np.zeros(len(sound), bool)
    for report in not_finite:
        covered[report.start_sample : report.end_sample] = True
    assert covered[~np.isfinite(sound)].all()
    for report in reports:
        assert 0 <= report.start_sample < report.end_sample <= len(sound)
        assert "\n" not in report.detail


def test_a_frame_of_another_length_is_refused():
    with pytest.raises(ValueError, match="320"):
        Conditioner().step(np.zeros(319, np.float32))
