import numpy as np
import pytest

from streamer.events import SAMPLE_RATE
from streamer.recipes.demo import passing_siren, smoke_alarm
from streamer.recipes.synthesis.alarms import KINDS, make, pattern


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", [0, 1])
def test_every_kind_is_finite_has_peak_one_and_the_asked_length(kind, seed):
    clip = make(kind, 7.3, np.random.default_rng(seed))
    assert len(clip.audio) == int(7.3 * SAMPLE_RATE)
    assert np.isfinite(clip.audio).all()
    assert np.abs(clip.audio).max() == pytest.approx(1.0, abs=1e-3)
    assert clip.active.any()
    assert clip.labels == KINDS[kind].labels


def test_the_activity_of_a_t4_alarm_leaves_its_pause_out():
    clip = make("co_t4", 20.0, np.random.default_rng(3))
    assert 0.05 < clip.active.mean() < 0.3


def test_a_pattern_without_a_random_start_begins_at_its_beginning():
    envelope = pattern(4.0, [(0.5, 0.5), (0.5, 0.5), (0.5, 1.5)], None)
    on = envelope > 0.5
    assert [bool(on[int(second * SAMPLE_RATE)]) for second in (0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.5)] == [
        True, False, True, False, True, False, False,
    ]  # fmt: skip


def test_the_demos_smoke_alarm_is_the_temporal_three_pattern():
    audio = smoke_alarm(8.0)
    spectrum = np.abs(np.fft.rfft(audio))
    assert np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)[spectrum.argmax()] == pytest.approx(3100, abs=5)
    assert np.abs(audio[int(2.6 * SAMPLE_RATE) : int(3.9 * SAMPLE_RATE)]).max() < 1e-6


def test_a_passing_siren_is_loudest_when_it_is_near():
    audio = passing_siren(12.0, np.random.default_rng(0))
    seconds = [float(np.abs(audio[s * SAMPLE_RATE : (s + 1) * SAMPLE_RATE]).max()) for s in range(12)]
    assert max(seconds) == max(seconds[5:8])
