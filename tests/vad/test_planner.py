import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import FRAME_SAMPLES
from streamer.events.plans import Beat, Hop, SegmentClosed, SegmentOpened
from streamer.settings.config import Settings, VadSettings, WindowSettings
from streamer.vad.planner import Gate, GateState, Planner, VoiceFrame
from streamer.vad.voice import VoiceDetector

FRAME = np.full(FRAME_SAMPLES, 0.1, np.float32)
ZEROS = np.zeros(FRAME_SAMPLES, np.float32)


def plan(flags, hop_s=0.5, frame=FRAME, rest=0):
    settings = Settings(window=WindowSettings(hop_s=hop_s), vad=VadSettings(hangover_ms=1000))
    planner = Planner(settings)
    plans = [p for voiced in flags for p in planner.step(frame, VoiceFrame(voiced, -20))]
    return plans + planner.finish(np.full(rest, 0.1, np.float32))


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([0.1, 0.2, 0.5, 1.0]), st.integers(0, 319))
def test_every_sample_is_in_one_hop_and_every_second_is_judged(flags, hop_s, rest):
    plans = plan(flags, hop_s, rest=rest)
    hops = [p for p in plans if isinstance(p, Hop)]
    position = 0
    for hop in hops:
        assert hop.end_sample - len(hop.samples) == position
        position = hop.end_sample
    total = len(flags) * FRAME_SAMPLES + rest
    assert position == total
    assert [hop.end_sample for hop in hops if hop.judge] == list(range(16000, total + 1, 16000))
    assert all(hop.end_sample % round(hop_s * 16000) == 0 for hop in hops[:-1])


@pytest.mark.parametrize(("hop_s", "ends"), [(0.5, [1600, 3200, 4800, 6400]), (0.2, [1600, 4800]), (0.1, [])])
def test_beats_are_pieces_of_the_hop_that_follows(hop_s, ends):
    frames = np.arange(8000, dtype=np.float32).reshape(-1, FRAME_SAMPLES)
    planner = Planner(Settings(window=WindowSettings(hop_s=hop_s)))
    plans = [p for frame in frames for p in planner.step(frame, VoiceFrame(False, -20))]
    beats = [p for p in plans if isinstance(p, Beat)]
    assert [beat.end_sample for beat in beats if beat.end_sample < 6401] == ends
    assert all(np.array_equal(beat.samples, frames.ravel()[beat.end_sample - 1600 : beat.end_sample]) for beat in beats)


@given(st.lists(st.booleans(), max_size=300))
def test_a_hop_with_text_covers_the_speech_of_every_segment(flags):
    """The promise that a closing needs no window of its own."""
    last_text_end = 0
    for p in plan(flags):
        if isinstance(p, Hop) and p.text:
            last_text_end = p.end_sample
        elif isinstance(p, SegmentClosed):
            assert last_text_end >= p.speech_end_sample


def test_speech_is_over_when_nobody_goes_on_in_time():
    pause, longer = [False] * 60, [False] * 100  # 1.2 and 2 s
    kinds = [
        type(p).__name__ for p in plan([True] * 25 + pause + [True] * 25 + longer) if not isinstance(p, Hop | Beat)
    ]
    assert kinds == ["SegmentOpened", "SegmentClosed", "SegmentOpened", "SegmentClosed", "SpeechOver"]


def test_order_is_open_hop_close():
    plans = plan([True] * 25 + [False] * 75)
    kinds = [type(p).__name__ for p in plans if not isinstance(p, Beat)]
    assert kinds == ["SegmentOpened", "Hop", "Hop", "SegmentClosed", "Hop", "SpeechOver", "Hop"]
    assert isinstance(plans[0], SegmentOpened)
    assert plans[0].start_sample == 0


@pytest.mark.parametrize(("frame", "silent"), [(ZEROS, True), (FRAME, False)])
def test_only_digital_silence_is_silent(frame, silent):
    hops = [p for p in plan([False] * 100, frame=frame) if isinstance(p, Hop)]
    assert [hop.silent for hop in hops if hop.judge] == [silent, silent]


def test_white_noise_does_not_keep_the_gate_open():
    """webrtcvad alone calls white noise speech."""
    noise = (np.random.default_rng(0).standard_normal(20 * 16000) * 0.05).astype(np.float32)
    settings = Settings()
    detector, planner = VoiceDetector(settings.vad), Planner(settings)
    hops = []
    for frame in noise.reshape(-1, FRAME_SAMPLES):
        hops += [p for p in planner.step(frame, detector.step(frame)) if isinstance(p, Hop)]
    assert not any(hop.text for hop in hops[4:])


GATE = VadSettings(onset_ms=60, hangover_ms=600, preroll_ms=300)


def opened_and_closed(frames: list[bool]) -> tuple[Gate, list]:
    gate = Gate(GATE)
    return gate, [change for voiced in frames if (change := gate.step(voiced))]


def test_opens_after_onset_with_preroll_and_closes_after_hangover():
    gate, changes = opened_and_closed([False] * 50 + [True] * 20 + [False] * 40)
    assert changes == [
        SegmentOpened(53 * FRAME_SAMPLES, start_sample=50 * FRAME_SAMPLES - 4800),
        SegmentClosed(100 * FRAME_SAMPLES, speech_end_sample=70 * FRAME_SAMPLES),
    ]
    assert gate.state is GateState.QUIET


def test_frames_without_one_that_is_sure_do_not_open():
    gate = Gate(GATE)
    assert [gate.step(True, False) for _ in range(100)] == [None] * 100
    assert gate.step(True, True) == SegmentOpened(101 * FRAME_SAMPLES, start_sample=0)


def test_a_click_does_not_open():
    _, changes = opened_and_closed([False] * 10 + [True] * 2 + [False] * 50)
    assert changes == []


def test_a_short_pause_does_not_close():
    gate, changes = opened_and_closed([True] * 20 + [False] * 29 + [True] * 5)
    assert len(changes) == 1
    assert gate.state is GateState.SPEAKING


def test_preroll_never_reaches_into_the_last_utterance():
    _, changes = opened_and_closed([True] * 5 + [False] * 30 + [True] * 5)
    opened = [change for change in changes if isinstance(change, SegmentOpened)]
    closed = next(change for change in changes if isinstance(change, SegmentClosed))
    assert opened[1].start_sample >= closed.speech_end_sample


def test_the_end_closes_an_open_gate_only():
    gate, _ = opened_and_closed([True] * 5)
    assert isinstance(gate.close(), SegmentClosed)
    assert gate.close() is None


@given(st.lists(st.booleans(), max_size=400))
def test_changes_alternate_and_times_are_ordered(frames):
    gate, changes = opened_and_closed(frames)
    if closing := gate.close():
        changes.append(closing)
    kinds = [type(change) for change in changes]
    assert kinds == [SegmentOpened, SegmentClosed] * (len(kinds) // 2)
    assert [change.end_sample for change in changes] == sorted(change.end_sample for change in changes)
    ends = [0, *(change.speech_end_sample for change in changes if isinstance(change, SegmentClosed))]
    starts = [change.start_sample for change in changes if isinstance(change, SegmentOpened)]
    assert all(end <= start for end, start in zip(ends, starts, strict=False))
