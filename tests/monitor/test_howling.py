"""A loop of loudspeaker, room and microphone around the whole chain, and sounds that are no howl."""

import numpy as np
import pytest
from scipy.signal import iirpeak, lfilter

from streamer.monitor.chain import FADE_IN_S, Chain
from streamer.monitor.howling import HowlingGuard
from streamer.settings.monitor import MonitorSettings

RATE, BLOCK = 16_000, 80


def looped(loop_s, leak_db, sound, audiogram="moderate"):
    """What plays [n] and the guard, where the headphones leak with a resonance at 2.7 kHz."""
    chain = Chain(MonitorSettings(output=0, audiogram=audiogram, limit_dbfs=-6), RATE, BLOCK, loop_s)
    b, a = iirpeak(2_700, 8, fs=RATE)
    state, air = np.zeros(2), np.zeros(round(loop_s * RATE / BLOCK) * BLOCK)
    played = []
    for at in range(0, len(sound), BLOCK):
        leaked, state = lfilter(b, a, air[:BLOCK], zi=state)
        out = chain.step((sound[at : at + BLOCK] + leaked * 10 ** (leak_db / 20)).astype(np.float32))[0]
        air = np.concatenate([air[BLOCK:], out])
        played.append(out)
    return np.concatenate(played), chain.howling


def levels(sound):
    """dBFS of each 10 ms."""
    return 10 * np.log10(np.mean(sound.reshape(-1, RATE // 100) ** 2, axis=1) + 1e-12)


@pytest.mark.parametrize(("loop_s", "leak_db"), [(0.01, -10), (0.03, -18), (0.08, -10)])
def test_a_howl_is_stopped_within_200_ms_and_does_not_come_back(loop_s, leak_db):
    room = np.random.default_rng(0).standard_normal(RATE * 6) * 0.001
    quiet = levels(looped(loop_s, -200, room)[0])  # nothing leaks: how loud it is without a howl
    played, guard = looped(loop_s, leak_db, room)
    assert guard.howls >= 1
    howling = levels(played) > np.median(quiet[-100:]) + 10
    longest = max(len(run) for run in "".join("x" if one else " " for one in howling).split(" "))
    assert longest * 10 <= 200
    assert guard.howls <= 4
    assert not howling[-150:].any()
    assert guard.gain_db <= -4


def test_without_a_leak_nothing_howls_and_a_beep_is_left_alone():
    """3.1 kHz as a smoke alarm has it: one short dip at the most, then it is heard."""
    at = np.arange(RATE * 5) / RATE
    beeps = 0.02 * np.sin(2 * np.pi * 3_100 * at) * (at % 1 < 0.5)
    played, guard = looped(0.03, -200, beeps)
    assert guard.howls == 0
    assert guard.gain_db == 0
    inside = (at % 1 > 0.2) & (at % 1 < 0.45) & (at > FADE_IN_S + 1)
    assert levels(played[inside][: inside.sum() // 160 * 160]).min() > -40


def test_a_voice_is_no_tone():
    at = np.arange(RATE * 4) / RATE
    pitch = 140 + 10 * np.sin(2 * np.pi * 3 * at)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(number * phase) / number for number in range(1, 20)) * 0.05
    chain = Chain(MonitorSettings(output=0), RATE, BLOCK, 0.03)
    dips = 0
    for start in range(0, len(voice), BLOCK):
        chain.step(voice[start : start + BLOCK].astype(np.float32))
        dips += chain.howling.gain_db < 0
    assert dips == 0


def test_a_tone_that_ends_just_when_we_are_quiet_is_no_howl():
    """As vowels do, at ever other places. One that always comes back at the same place is taken for one."""
    guard = HowlingGuard(RATE, BLOCK, 0.03)

    def hear(hz, seconds):
        sound = 0.1 * np.sin(2 * np.pi * hz * np.arange(round(RATE * seconds)) / RATE)
        return [guard.step(piece) for piece in sound.reshape(-1, BLOCK)]

    for hz in (480, 530, 620, 440, 570):
        assert min(hear(hz, 0.1)) < -30
        assert hear(0, 1)[-1] == 0
    assert guard.howls == 0
    hear(2_000, 0.1)
    hear(0, 1)
    hear(2_000, 0.1)
    assert hear(0, 1)[-1] < -5
    assert guard.howls == 1
