import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.config import Settings, VadSettings, WindowSettings
from streamer.vad.planner import Hop, Planner, SegmentClosed, SegmentOpened
from streamer.vad.webrtc import FRAME_SAMPLES, VoiceDetector, VoiceFrame

FRAME = np.full(FRAME_SAMPLES, 0.1, np.float32)
ZEROS = np.zeros(FRAME_SAMPLES, np.float32)


def plan(flags, hop_s=0.5, frame=FRAME, rest=0):
    settings = Settings(window=WindowSettings(hop_s=hop_s), vad=VadSettings(hangover_ms=1000))
    planner = Planner(settings)
    plans = [p for voiced in flags for p in planner.step(frame, VoiceFrame(voiced, -20, -60))]
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


@given(st.lists(st.booleans(), max_size=300))
def test_a_hop_with_text_covers_the_speech_of_every_segment(flags):
    """The promise that a closing needs no window of its own."""
    last_text_end = 0
    for p in plan(flags):
        if isinstance(p, Hop) and p.text:
            last_text_end = p.end_sample
        elif isinstance(p, SegmentClosed):
            assert last_text_end >= p.speech_end_sample


def test_order_is_open_hop_close():
    plans = plan([True] * 25 + [False] * 75)
    kinds = [type(p).__name__ for p in plans]
    assert kinds == ["SegmentOpened", "Hop", "Hop", "SegmentClosed", "Hop", "Hop"]
    assert isinstance(plans[0], SegmentOpened)
    assert plans[0].start_sample == 0


@pytest.mark.parametrize(("frame", "silent"), [(ZEROS, True), (FRAME, False)])
def test_only_digital_silence_is_silent(frame, silent):
    hops = plan([False] * 100, frame=frame)
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
