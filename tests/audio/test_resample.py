import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import babble

from streamer.audio.resample import BlockMaker, Mixer, Resampler, mix_to_mono, to_16k

RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-0.5, 0.5, count).astype(np.float32)


def split(samples: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(samples, sorted(cut % (len(samples) + 1) for cut in cuts))


@given(st.sampled_from(RATES), st.integers(0, 20_000), st.lists(st.integers(0, 20_000), max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_same_samples(rate, count, cuts):
    samples = noise(count)
    whole = Resampler(rate)
    expected = np.concatenate([whole.push(samples), whole.flush()])
    pieces = Resampler(rate)
    found = [pieces.push(piece) for piece in split(samples, cuts)] + [pieces.flush()]
    assert np.array_equal(np.concatenate(found), expected)
    assert len(expected) == to_16k(count, rate)


def test_16_khz_passes_untouched():
    samples = noise(1000)
    assert Resampler(16_000).push(samples) is samples


@pytest.mark.parametrize("rate", RATES)
def test_the_filters_delay_is_taken_out(rate):
    seconds = 1.0
    source = np.sin(2 * np.pi * 300 * np.arange(int(rate * seconds)) / rate).astype(np.float32)
    resampler = Resampler(rate)
    found = np.concatenate([resampler.push(source), resampler.flush()])
    expected = np.sin(2 * np.pi * 300 * np.arange(len(found)) / 16_000)
    middle = slice(1600, -1600)
    assert np.abs(found[middle] - expected[middle]).max() < 1e-3


def test_a_flushed_resampler_is_as_new():
    resampler, samples = Resampler(44_100), noise(10_000)
    first = np.concatenate([resampler.push(samples), resampler.flush()])
    second = np.concatenate([resampler.push(samples), resampler.flush()])
    assert np.array_equal(first, second)


@given(
    st.sampled_from(RATES),
    st.lists(st.tuples(st.booleans(), st.integers(0, 5_000)), max_size=12),
)
@settings(max_examples=80, deadline=None)
def test_the_clock_never_drifts_whatever_is_lost(rate, steps):
    maker, native, blocks = BlockMaker(rate), 0, []
    for is_loss, count in steps:
        blocks += maker.lost(count, "lost") if is_loss else maker.push(noise(count))
        native += count
    blocks += maker.finish()
    clock = sum(block.lost_samples + len(block.samples) for block in blocks)
    # The tail of a run is rounded on its own; where sound ends the account, its rounding is all that can differ.
    assert abs(clock - to_16k(native, rate)) <= 1
    assert all(block.lost_samples or len(block.samples) for block in blocks)


def test_channels_are_mixed_and_what_the_mix_tells_comes_before_its_sound():
    maker = BlockMaker(16_000)
    (block,) = maker.mix(np.array([[0.5, 0.1], [1.0, -1.0]], np.float32))
    assert block.samples.tolist() == [np.float32(0.3), 0.0]
    wave = babble(16_000, 1.0)[:, 0]
    told, *sound = maker.mix(np.stack([wave, -wave], axis=1))
    assert "cancel each other out" in told.notice
    assert sum(len(block.samples) for block in sound) == 16_000


def test_sound_after_a_loss_lands_at_its_true_place():
    rate, maker = 48_000, BlockMaker(48_000)
    click = np.zeros(4_800, np.float32)
    click[2_400] = 1.0
    blocks = [*maker.push(np.zeros(1_000, np.float32)), *maker.lost(47_000, "gone"), *maker.push(click)]
    blocks += maker.finish()
    heard = np.concatenate([np.concatenate([np.zeros(b.lost_samples, np.float32), b.samples]) for b in blocks])
    assert int(np.argmax(heard)) == (48_000 + 2_400) * 16_000 // rate


def test_a_new_rate_goes_on_seamlessly():
    maker = BlockMaker(48_000)
    blocks = [*maker.push(noise(48_000)), *maker.change_rate(16_000), *maker.push(noise(16_000)), *maker.finish()]
    assert maker.rate == 16_000
    assert sum(len(block.samples) for block in blocks) == 32_000


RATE = 16_000


def sound(seconds: float, seed: int = 1) -> np.ndarray:
    """Mono float32 [n]."""
    return babble(RATE, seconds, seed=seed)[:, 0].astype(np.float32) / 32_768


def mixed(frames: np.ndarray, rate: int = RATE, cuts: list[int] | None = None) -> tuple[np.ndarray, list[str]]:
    """What comes out of the mixer, and what it said, whole or in pieces."""
    mixer, notices, out = Mixer(rate), [], []
    edges = [0, *sorted(at % (len(frames) + 1) for at in cuts or []), len(frames)]
    for left, right in itertools.pairwise(edges):
        out.append(mixer.push(frames[left:right]))
        notices += filter(None, [mixer.take_notice()])
    return np.concatenate(out), notices


@given(st.lists(st.integers(0, 20_000), max_size=12), st.sampled_from([1.0, -1.0, -0.8]), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_any_split_gives_the_same_samples(cuts, factor, seed):
    one = sound(1.0, seed)
    frames = np.stack([one, one * np.float32(factor)], axis=1)
    frames = np.concatenate([frames, np.stack([one, one], axis=1)])
    assert np.array_equal(mixed(frames, cuts=cuts)[0], mixed(frames)[0])


@pytest.mark.parametrize("factor", [-1.0, -0.9, -0.75])
def test_channels_that_cancel_give_the_louder_one_and_one_line(factor):
    one = sound(3.0)
    out, notices = mixed(np.stack([one * np.float32(factor * 0.99), one], axis=1))
    assert np.array_equal(out[1_600:], one[1_600:])
    assert len(notices) == 1
    assert "channel 2 of 2 is heard alone" in notices[0]


def test_noise_of_their_own_does_not_hide_that_channels_cancel():
    one, rng = sound(3.0), np.random.default_rng(3)
    frames = np.stack([one, -one], axis=1) + rng.normal(0, 0.1 * one.std(), (len(one), 2)).astype(np.float32)
    out, notices = mixed(frames)
    assert abs(np.corrcoef(out[5_000:], one[5_000:])[0, 1]) > 0.98
    assert len(notices) == 1


def test_an_offset_of_each_channel_says_nothing_and_hides_nothing():
    one = sound(2.0)
    assert mixed(np.stack([one + 0.1, one - 0.1], axis=1).astype(np.float32))[1] == []
    assert len(mixed(np.stack([one + 0.1, 0.1 - one], axis=1).astype(np.float32))[1]) == 1


@pytest.mark.parametrize(
    "second",
    ["same", "silent", "other", "quieter opposite", "delayed"],
)
def test_ordinary_stereo_is_the_plain_mean(second):
    one = sound(4.0)
    other = {
        "same": one,
        "silent": np.zeros_like(one),
        "other": sound(4.0, seed=7),
        "quieter opposite": one * np.float32(-0.3),
        "delayed": np.roll(one, 11),
    }[second]
    frames = np.stack([one, other], axis=1)
    out, notices = mixed(frames)
    assert notices == []
    assert np.array_equal(out, mix_to_mono(frames))


def test_five_channels_and_a_pair_that_cancels():
    one = sound(2.0)
    frames = np.zeros((len(one), 6), np.float32)
    frames[:, 4], frames[:, 5] = one, -one
    out, notices = mixed(frames)
    assert np.array_equal(out[1_600:], one[1_600:])
    assert "channel 5 of 6" in notices[0]
    frames[:, 2] = one  # the centre holds it too: nothing is lost
    assert mixed(frames)[1] == []


def test_it_begins_and_ends_in_the_middle_without_a_click():
    wave = (0.3 * np.sin(2 * np.pi * 300 * np.arange(4 * RATE) / RATE)).astype(np.float32)
    frames = np.stack([wave, wave], axis=1)
    frames[RATE : 2 * RATE, 1] *= -1
    out, notices = mixed(frames)
    assert len(notices) == 1
    assert np.array_equal(out[:RATE], wave[:RATE])
    assert np.array_equal(out[RATE + 5_000 : 2 * RATE], wave[RATE + 5_000 : 2 * RATE])
    assert np.array_equal(out[3 * RATE :], wave[3 * RATE :])
    steps = np.abs(np.diff(out[RATE + 20 : 2 * RATE - 20]))
    assert steps.max() < 1.2 * np.abs(np.diff(wave)).max()


def test_quiet_between_words_does_not_bring_the_mean_back():
    one, rng = sound(1.0), np.random.default_rng(5)
    word = np.stack([one, -one], axis=1)
    hiss = rng.normal(0, 1e-3, (2 * RATE, 2)).astype(np.float32)
    out, _ = mixed(np.concatenate([word, hiss, word]))
    assert np.array_equal(out[3 * RATE :], one)


def test_integers_are_judged_as_floats_are():
    one = babble(48_000, 1.0)[:, 0]
    out, notices = mixed(np.stack([one, -one], axis=1), 48_000)
    assert np.array_equal(out[4_800:], one[4_800:].astype(np.float32) / 32_768)
    assert len(notices) == 1
    unsigned = (one // 256 + 128).astype(np.uint8)
    assert len(mixed(np.stack([unsigned, 255 - unsigned], axis=1), 48_000)[1]) == 1


def test_silence_and_values_that_are_not_finite_say_nothing():
    frames = np.zeros((RATE, 2), np.float32)
    assert mixed(frames)[1] == []
    one = sound(2.0)
    frames = np.stack([one, -one], axis=1)
    frames[100, 0] = np.nan
    frames[900, 1] = np.inf
    out, notices = mixed(frames)
    assert len(notices) == 1
    assert np.array_equal(out[4_000:], one[4_000:])


def test_another_number_of_channels_starts_afresh():
    one = sound(1.0)
    mixer = Mixer(RATE)
    mixer.push(np.stack([one, -one], axis=1))
    assert np.array_equal(mixer.push(one[:, None]), one)
    frames = np.stack([one, one, one], axis=1)
    assert np.array_equal(mixer.push(frames), mix_to_mono(frames))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0], [128], [255]], np.uint8), [-1, 0, 127 / 128]),
        (np.array([[-(2**31)], [2**30]], np.int32), [-1, 0.5]),
        (np.array([[0.25, 0.75]], np.float64), [0.5]),
        (
            np.array([[-32_768], [-1], [0], [1], [32_767]], np.int16),
            [-1.0, -1 / 32_768, 0.0, 1 / 32_768, 32_767 / 32_768],
        ),
    ],
)
def test_every_sample_type_is_scaled(values, expected):
    assert mix_to_mono(values).tolist() == expected
