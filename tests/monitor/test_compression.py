import numpy as np
import pytest
from scipy.signal import butter, sosfilt
from speechlike import speech_noise, third_octave_gains, through

from streamer.monitor.audiogram import Audiogram, audiogram_of, preset
from streamer.monitor.chain import Chain
from streamer.monitor.compression import CROSSOVERS_HZ, FilterBank, fit
from streamer.monitor.fitting import fitting_of
from streamer.monitor.prescription import compression_ratio, insertion_gain, speech_levels
from streamer.settings.monitor import MonitorSettings

CENTRES = np.array([250.0, 500.0, 1000.0, 2000.0, 4000.0, 6000.0])


def test_nal_r_gives_the_published_gains():
    """Byrne & Dillon 1986: X = 0.05 (H500 + H1000 + H2000); gain = X + 0.31 H + k."""
    flat = dict.fromkeys((250, 500, 1000, 2000, 4000, 6000), 40.0)
    gains = insertion_gain(Audiogram(flat, flat), 0, CENTRES)
    assert gains == pytest.approx([6 + 12.4 - 17, 6 + 12.4 - 8, 6 + 12.4 + 1, 6 + 12.4 - 1, 16.4, 16.4])


def test_normal_ears_get_hardly_any():
    normal = dict.fromkeys((500, 1000, 2000, 4000), 0.0)
    assert insertion_gain(Audiogram(normal, normal), 1, CENTRES).max() <= 1.0


def test_ears_are_fitted_apart():
    good, bad = dict.fromkeys((500, 1000, 2000, 4000), 10.0), dict.fromkeys((500, 1000, 2000, 4000), 60.0)
    fitted = fit(Audiogram(good, bad), FilterBank(16_000, 80), 16_000)
    assert fitted.gain_db[1, 2] - fitted.gain_db[0, 2] == pytest.approx(0.46 * 50, abs=1.5)


def test_ratios_are_those_of_fig6():
    assert compression_ratio(np.array([0.0, 20.0, 60.0])) == pytest.approx([1, 1, 55 / (55 - (40 - 0.1 * 20**1.4))])


def test_speech_of_65_db_is_65_db():
    assert 10 * np.log10(np.sum(10 ** (speech_levels(np.array([20.0, 12_000.0])) / 10))) == pytest.approx(65, abs=0.3)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_bands_of_the_same_gain_add_up_to_a_flat_response(rate):
    at_hz = np.geomspace(50, 0.44 * rate, 200)
    total = np.abs(FilterBank(rate, 80).response(at_hz, rate).sum(axis=0))
    assert np.abs(20 * np.log10(total)).max() < 0.01


@pytest.mark.parametrize(("rate", "block"), [(48_000, 240), (44_100, 220), (16_000, 80), (44_100, 211), (8_000, 1)])
def test_bands_are_those_of_sosfilt(rate, block):
    sound, bank = np.random.default_rng(0).standard_normal(block * (9_600 // block)), FilterBank(rate, block)
    got = np.concatenate([bank.step(piece) for piece in sound.reshape(-1, block)], axis=1)
    crossovers = [hz for hz in CROSSOVERS_HZ if hz < 0.45 * rate]
    low = [butter(2, hz, "lowpass", fs=rate, output="sos") for hz in crossovers]
    high = [butter(2, hz, "highpass", fs=rate, output="sos") for hz in crossovers]
    passes = [np.concatenate([one[0, :2:-1], one[0, 3:]])[None] for one in low]
    for band in range(len(bank)):
        sections = [one for cut in high[:band] for one in (cut, cut)]
        sections += [low[band], low[band]] if band < len(low) else []
        wanted = sosfilt(np.vstack(sections + passes[band + 1 :]), sound)
        assert np.abs(got[band] - wanted).max() < 1e-8


@pytest.mark.parametrize("name", ["mild", "moderate", "sloping"])
def test_gains_are_those_of_the_prescription_for_soft_middle_and_loud_speech(name):
    """Through the whole chain; the steepest audiogram is 3.1 dB off at one place for loud speech."""
    audiogram, rate, full_scale = preset(name), 16_000, 120.0
    settings = MonitorSettings(
        output=0,
        audiogram=name,
        noise_reduction=False,
        limit_dbfs=-1,
        volume_db=-30,
        input_full_scale_db_spl=full_scale,
    )
    for level, most in ((65, 2.0), (50, 3.0), (80, 3.0)):
        chain = Chain(settings, rate, 80)
        sound = speech_noise(rate, 5, level, full_scale)
        came = through(chain, sound)[0]
        late = slice(3 * rate, -chain.delay_samples)
        got = third_octave_gains(sound[late], came[3 * rate + chain.delay_samples :], rate, CENTRES) + 30
        change = (65 - level) * (1 - 1 / compression_ratio(audiogram.ear(0, CENTRES)))
        wanted = insertion_gain(audiogram, 0, CENTRES) + change
        steep = 0.3 if (name, level) == ("sloping", 80) else 0.0
        assert np.abs(got - wanted).max() <= most + steep, (name, level, np.round(got - wanted, 1))


def test_the_noise_of_an_empty_room_is_not_amplified_as_soft_speech_is():
    fitted = fit(preset("moderate"), FilterBank(16_000, 80), 16_000)
    soft, empty = fitted.gain(fitted.speech_db - 25), fitted.gain(fitted.speech_db - 55)
    assert np.all(empty[0] <= soft[0] - 11)


@pytest.mark.parametrize("name", ["mild", "moderate", "sloping"])
def test_the_gains_that_are_shown_are_those_that_are_heard(name):
    settings = MonitorSettings(output=0, audiogram=name)
    shown = fitting_of(settings)
    average = next(gains for gains in shown.gains if gains.speech_db == 65)
    wanted = insertion_gain(audiogram_of(settings), 0, np.array(shown.at_hz, np.float64))
    assert np.abs(np.array(average.left) - wanted).max() < 2.5
