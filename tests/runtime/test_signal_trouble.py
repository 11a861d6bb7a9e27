"""What a session says of a signal that is not well."""

from hypothesis import given
from hypothesis import strategies as st

from streamer.events import SAMPLE_RATE
from streamer.events.plans import Report, Trouble
from streamer.runtime.signal_trouble import TROUBLE_SAMPLES, Condition, SignalTrouble, Stretch


def broken(start: int, end: int) -> Report:
    return Report(Trouble.NOT_FINITE, start, end, end - start, "NaN")


def told(said: list[Stretch] | list[Stretch | Condition]) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in said if isinstance(one, Stretch) and one.told]


def test_a_stretch_that_goes_on_is_told_each_time_that_it_doubled():
    trouble, seconds = SignalTrouble(), []
    for second in range(16):
        report = broken(second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE)
        seconds += [(start // SAMPLE_RATE, end // SAMPLE_RATE) for start, end in told(trouble.noticed(report, 0))]
    assert seconds == [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16)]
    assert trouble.rest() == []


def test_the_rest_of_a_stretch_is_told_two_seconds_after_its_end():
    trouble = SignalTrouble()
    for second in range(3):
        trouble.noticed(broken(second * SAMPLE_RATE, (second + 1) * SAMPLE_RATE), 0)
    assert trouble.recovered(5 * SAMPLE_RATE - 1) == []
    assert trouble.recovered(5 * SAMPLE_RATE) == [Stretch(2 * SAMPLE_RATE, 3 * SAMPLE_RATE, "NaN")]
    assert trouble.recovered(9 * SAMPLE_RATE) == []


def test_an_offset_is_told_once_and_clipping_until_ten_seconds_after_the_last():
    trouble = SignalTrouble()
    offset = Report(Trouble.DC_OFFSET, 0, 320, 320, "offset")
    assert trouble.noticed(offset, 320) == [Condition("listening", "offset")]
    assert trouble.noticed(offset, 640) == []
    clipping = Report(Trouble.CLIPPING, 0, 320, 320, "too loud")
    for at in (1_000, 2_000):
        assert trouble.noticed(clipping, at) == [Condition("degraded", "too loud")]
    assert trouble.recovered(1_000 + TROUBLE_SAMPLES) == []
    assert trouble.recovered(2_000 + TROUBLE_SAMPLES) == [Condition("listening")]
    assert trouble.recovered(3_000 + TROUBLE_SAMPLES) == []


@given(st.lists(st.tuples(st.integers(0, 3 * SAMPLE_RATE), st.integers(1, SAMPLE_RATE)), max_size=30))
def test_every_broken_sample_is_told_exactly_once(pieces):
    trouble, at, said, all_broken = SignalTrouble(), 0, [], []
    for pause, length in pieces:
        at += pause
        said += told(trouble.recovered(at)) + told(trouble.noticed(broken(at, at + length), at + length))
        all_broken.append((at, at + length))
        at += length
    said += told(trouble.rest())
    edges = [edge for pair in said for edge in pair]
    assert edges == sorted(edges)
    assert sum(end - start for start, end in said) == sum(end - start for start, end in all_broken)
