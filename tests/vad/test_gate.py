from hypothesis import given
from hypothesis import strategies as st

from streamer.events import FRAME_SAMPLES
from streamer.settings.config import VadSettings
from streamer.vad.gate import Gate, GateClosed, GateOpened, GateState

SETTINGS = VadSettings(onset_ms=60, hangover_ms=600, preroll_ms=300)


def run(frames: list[bool]) -> tuple[Gate, list]:
    gate = Gate(SETTINGS)
    return gate, [change for voiced in frames if (change := gate.step(voiced))]


def test_opens_after_onset_with_preroll_and_closes_after_hangover():
    gate, changes = run([False] * 50 + [True] * 20 + [False] * 40)
    assert changes == [
        GateOpened(at_sample=53 * FRAME_SAMPLES, speech_start=50 * FRAME_SAMPLES - 4800),
        GateClosed(at_sample=100 * FRAME_SAMPLES, speech_end=70 * FRAME_SAMPLES),
    ]
    assert gate.state is GateState.QUIET


def test_frames_without_one_that_is_sure_do_not_open():
    gate = Gate(SETTINGS)
    assert [gate.step(True, False) for _ in range(100)] == [None] * 100
    assert gate.step(True, True) == GateOpened(at_sample=101 * FRAME_SAMPLES, speech_start=0)


def test_a_click_does_not_open():
    _, changes = run([False] * 10 + [True] * 2 + [False] * 50)
    assert changes == []


def test_a_short_pause_does_not_close():
    gate, changes = run([True] * 20 + [False] * 29 + [True] * 5)
    assert len(changes) == 1
    assert gate.state is GateState.SPEAKING


def test_preroll_never_reaches_into_the_last_utterance():
    _, changes = run([True] * 5 + [False] * 30 + [True] * 5)
    opened = [change for change in changes if isinstance(change, GateOpened)]
    closed = next(change for change in changes if isinstance(change, GateClosed))
    assert opened[1].speech_start >= closed.speech_end


def test_finish_closes_an_open_gate_only():
    gate, _ = run([True] * 5)
    assert isinstance(gate.finish(), GateClosed)
    assert gate.finish() is None


@given(st.lists(st.booleans(), max_size=400))
def test_changes_alternate_and_times_are_ordered(frames):
    gate, changes = run(frames)
    if closing := gate.finish():
        changes.append(closing)
    kinds = [type(change) for change in changes]
    assert kinds == [GateOpened, GateClosed] * (len(kinds) // 2)
    assert [change.at_sample for change in changes] == sorted(change.at_sample for change in changes)
    ends = [0, *(change.speech_end for change in changes if isinstance(change, GateClosed))]
    starts = [change.speech_start for change in changes if isinstance(change, GateOpened)]
    assert all(end <= start for end, start in zip(ends, starts, strict=False))
