import numpy as np
import pytest

from streamer.monitor.alarm_signal import TONE_HZ, AlarmSignal, signal_hz
from streamer.monitor.audibility import Audibility
from streamer.monitor.audiogram import Audiogram, preset
from streamer.monitor.chain import FADE_IN_S, Chain
from streamer.settings.monitor import AlarmSettings, MonitorSettings

RATE, BLOCK = 16_000, 80


def test_a_low_tone_unless_that_is_the_one_that_is_not_heard():
    assert signal_hz(None) == signal_hz(preset("sloping")) == TONE_HZ == 520
    low = {250: 80.0, 500: 75.0, 1000: 40.0, 2000: 20.0, 4000: 20.0}
    assert signal_hz(Audiogram(low, low)) == 2000


def test_three_pulses_a_rest_and_again():
    signal = AlarmSignal(RATE, 520, 0.1, pause_s=1.5)
    signal.start()
    got = [signal.step(BLOCK) for _ in range(RATE * 8 // BLOCK)]
    sound = np.concatenate([np.zeros(BLOCK) if one is None else one for one in got])
    on = np.abs(sound).reshape(-1, BLOCK).max(axis=1) > 0.05
    edges = np.flatnonzero(np.diff(on.astype(int)) > 0) * BLOCK / RATE
    assert edges == pytest.approx([0, 1, 2, 4, 5, 6], abs=0.02)
    assert np.abs(sound).max() <= 0.1 + 1e-9
    spectrum = np.abs(np.fft.rfft(sound[1_000:7_000]))
    assert np.argmax(spectrum) * RATE / 6_000 == pytest.approx(520, abs=3)


@pytest.mark.parametrize("heard_s", [0.0, 0.3, 2.2, 4.0])
def test_what_is_over_in_a_moment_makes_three_pulses_all_the_same(heard_s):
    """Glass breaks: one pulse of half a second is missed easily."""
    signal = AlarmSignal(RATE, 520, 0.1, pause_s=6)
    signal.start()
    got = [signal.step(BLOCK) for _ in range(round(heard_s * RATE / BLOCK))]
    signal.finish()
    got += [signal.step(BLOCK) for _ in range(RATE * 20 // BLOCK)]
    on = np.array([one is not None and np.abs(one).max() > 0.05 for one in got])
    assert np.count_nonzero(np.diff(on.astype(int), prepend=0) > 0) == 3
    assert not signal.on
    signal.finish()  # nothing begins
    assert signal.step(BLOCK) is None


def test_it_ducks_the_rest_until_it_is_acknowledged():
    chain = Chain(MonitorSettings(output=0, alarm=AlarmSettings(tone_hz=520), noise_reduction=False), RATE, BLOCK)
    tone = 0.02 * np.sin(2 * np.pi * 2_500 * np.arange(RATE * 8) / RATE).astype(np.float32)
    chain.howling._left_alone = {}

    def level_of_the_rest(blocks):
        got = np.concatenate([chain.step(tone[at : at + BLOCK])[0] for at in range(0, blocks * BLOCK, BLOCK)])
        spectrum = np.abs(np.fft.rfft(got[-4_000:] * np.hanning(4_000)))
        return 20 * np.log10(spectrum[615:636].max())

    before = level_of_the_rest(round((FADE_IN_S + 1) * 200))
    chain.alarm(True)
    during = level_of_the_rest(90)
    chain.alarm(False)
    after = level_of_the_rest(200)
    assert before - during > 12
    assert after == pytest.approx(before, abs=1)


def hearing(audiogram, hz, level_db_spl, full_scale=100.0):
    audibility = Audibility(audiogram, full_scale)
    amplitude = np.sqrt(2) * 10 ** ((level_db_spl - full_scale) / 20)
    audibility.hear((amplitude * np.sin(2 * np.pi * hz * np.arange(8_000) / 16_000)).astype(np.float32))
    return audibility


def test_what_lies_below_the_threshold_is_too_quiet():
    """3.1 kHz at 65 dB SPL: a sloping loss has 75 dB HL there, a mild one 40."""
    assert hearing(preset("sloping"), 3_100, 65).too_quiet("smoke_alarm")
    assert not hearing(preset("mild"), 3_100, 65).too_quiet("smoke_alarm")
    assert not hearing(preset("sloping"), 3_100, 95).too_quiet("smoke_alarm")
    assert not Audibility(preset("sloping"), 100.0).too_quiet("smoke_alarm")  # nothing is known


def test_other_sounds_beside_it_do_not_make_it_audible():
    loud_and_low = hearing(preset("sloping"), 300, 80)
    assert loud_and_low.too_quiet("smoke_alarm")
    assert not loud_and_low.too_quiet("some_rule_of_mine")
