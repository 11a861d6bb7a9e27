import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nano_bank import small_bank, word

from streamer.events import SAMPLE_RATE
from streamer.recipes.nano.compose import HEARD, MARGIN, SPEECH, Recipe, _cut, compose
from streamer.recipes.synthesis.acoustics import formants_moved, noise, resampled, stretched
from streamer.recipes.synthesis.clips import TimedWord, activity

BANK = small_bank()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), seconds=st.floats(2, 12))
def test_a_window_has_its_length_and_words_in_order_inside_it(seed, seconds):
    count = int(seconds * 50) * 320
    window = compose(BANK, count, np.random.default_rng(seed), Recipe())
    assert window.audio.shape == (count,)
    assert np.isfinite(window.audio).all()
    assert np.abs(window.audio).max() <= 1
    words = [word for turn in window.turns for word in turn]
    assert all(0 <= word.start < word.end <= count for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert window.activity.shape[0] == -(-count // 1600)
    if words:
        assert window.activity[:, SPEECH].any()


def test_the_same_seed_composes_the_same_window():
    first, second = (compose(BANK, 48_000, np.random.default_rng(5), Recipe()) for _ in range(2))
    assert np.array_equal(first.audio, second.audio)
    assert first.turns == second.turns


def test_without_speech_there_are_no_words():
    for seed in range(10):
        window = compose(BANK, 32_000, np.random.default_rng(seed), Recipe(speech=0))
        assert window.turns == ()
        assert not window.activity[:, SPEECH].any()


@pytest.mark.parametrize(("heard", "written"), [(HEARD + 0.02, 1), (HEARD - 0.02, 0)])
def test_a_cut_word_is_written_when_enough_of_it_is_heard(heard, written):
    count = 2 * SAMPLE_RATE
    start = MARGIN + count - int(heard * 8000)
    turns, cut = _cut([(TimedWord("one", start, start + 8000),)], count)
    assert sum(map(len, turns)) == written
    assert cut == bool(written)


def test_changed_voices_keep_their_word_times_inside():
    clip = word("seven", 3, 0.6)
    for changed, length in (
        (resampled(clip, 1.25), 0.48),
        (stretched(clip, 1.5), 0.9),
        (formants_moved(clip, 1.2), 0.6),
    ):
        assert len(changed.audio) / SAMPLE_RATE == pytest.approx(length, abs=0.05)
        assert changed.words[0].end <= len(changed.audio)
        assert np.isfinite(changed.audio).all()


def test_stretching_keeps_the_pitch():
    clip = word("five", 2, 1.0)
    for factor in (0.8, 1.3):
        audio = stretched(clip, factor).audio[2000:-2000]
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
        assert np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)[spectrum.argmax()] == pytest.approx(500, abs=8)


def test_noise_has_unit_power_and_activity_finds_the_loud_part():
    audio = noise(40_000, np.random.default_rng(2))
    assert float(np.mean(audio**2)) == pytest.approx(1, rel=0.05)
    audio[:16_000] = 0
    assert not activity(audio)[:9].any()
    assert activity(audio)[11:].all()
    assert not activity(np.zeros(1600, np.float32)).any()
