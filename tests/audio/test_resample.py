import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.audio.resample import BlockMaker, Resampler, to_16k

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


def test_an_impossible_rate_is_refused():
    with pytest.raises(ValueError, match="above 0 Hz"):
        Resampler(0)


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
