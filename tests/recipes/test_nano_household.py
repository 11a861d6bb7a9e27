import numpy as np
import pytest

from streamer.events import SAMPLE_RATE
from streamer.recipes.synthesis.household import SECONDS, SOUNDS, household
from streamer.sound.labels import labels

NAMES = {
    "made_knock": {"Knock"},
    "made_glass": {"Glass", "Shatter"},
    "made_baby": {"Baby cry, infant cry"},
    "made_dog": {"Dog", "Bark"},
    "far_siren": {"Siren", "Alarm"},
    "far_clock": {"Alarm clock", "Alarm"},
}


@pytest.fixture(scope="module")
def clips():
    return household(6, 5)


def test_every_sound_has_its_audioset_names(clips):
    assert {clip.category: {labels()[index].name for index in clip.labels} for clip in clips} == NAMES


def test_clips_are_finite_audible_and_of_one_length(clips):
    for clip in clips:
        assert len(clip.audio) == int(SECONDS * SAMPLE_RATE)
        assert np.isfinite(clip.audio).all()
        assert np.abs(clip.audio).max() == pytest.approx(0.5, abs=1e-3)
        assert clip.active.any()


def test_the_seed_decides_and_no_two_clips_are_alike(clips):
    again, other = household(6, 5), household(6, 6)
    assert all(np.array_equal(one.audio, two.audio) for one, two in zip(clips, again, strict=True))
    assert not any(np.array_equal(one.audio, two.audio) for one, two in zip(clips, other, strict=True))
    assert len({clip.audio.tobytes() for clip in clips}) == 6 * len(SOUNDS)


def test_breaking_glass_lies_higher_than_knocking(clips):
    def low(clip):
        power = np.abs(np.fft.rfft(clip.audio)) ** 2
        return power[: len(power) // 8].sum() / power.sum()

    share = {name: np.median([low(clip) for clip in clips if clip.category == name]) for name in SOUNDS}
    assert share["made_glass"] < 0.5 < share["made_knock"]


def test_knocks_and_barks_come_and_go_while_sirens_go_on(clips):
    active = {name: np.mean([clip.active.mean() for clip in clips if clip.category == name]) for name in SOUNDS}
    assert active["made_knock"] < 0.7
    assert active["made_dog"] < 0.7
    assert active["far_siren"] > 0.95
