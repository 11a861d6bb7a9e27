"""Everything between a block of the microphone and a block for both ears (pure; one block in, one block out).

microphone ─► howling guard (listens)
    └─► noise reduction ─► bands ─► levels ─► gain of each band and ear ─► both ears ─┐
                                              alarm's signal ─► ducking, volume, fade ┴─► limiter ─► headphones
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.events import SceneName
from streamer.monitor.alarm_signal import DUCK_DB, AlarmSignal, signal_hz
from streamer.monitor.audiogram import Audiogram, audiogram_of
from streamer.monitor.compression import EARS, FilterBank, Levels, fit
from streamer.monitor.howling import HowlingGuard
from streamer.monitor.limiter import Limiter
from streamer.monitor.noise import NoiseReducer
from streamer.monitor.programs import Fader
from streamer.settings.monitor import MonitorSettings

LIMITED_DB: Final = 1.0  # less is a loud syllable
FADE_IN_S: Final = 2.0  # from silence, whenever the sound begins
GLIDE_S: Final = 0.03  # for what changes at once: ducking


class Chain:
    """The hearing aid for one microphone at one rate. `block`: samples of each step."""

    def __init__(self, settings: MonitorSettings, rate: int, block: int, loop_s: float = 0.1) -> None:
        """`loop_s`: how long the devices hold sound between the microphone and the ear, at most."""
        self.rate, self.block, self._settings = rate, block, settings
        audiogram, block_s = audiogram_of(settings), block / rate
        self._bank = FilterBank(rate, block)
        self._fit = None if audiogram is None else fit(audiogram, self._bank, rate)
        self._levels = Levels(len(self._bank), block_s, settings.input_full_scale_db_spl)
        self._noise = NoiseReducer(rate, block)
        self.howling = HowlingGuard(rate, block, loop_s)
        self._fader = Fader(block_s, "speech" if settings.program == "auto" else settings.program)
        # A number that float32 has: rounding what is below does not go above it. Without an audiogram both ears are
        # one.
        self._limiter = Limiter(rate, EARS if self._fit else 1, _rounded_down(10 ** (settings.ceiling_dbfs / 20)))
        self._alarm, self._alarm_gain = self._signal(audiogram)
        self._ramp = np.arange(1, block + 1) / block
        self._fade_blocks, self._glide = max(1, round(FADE_IN_S / block_s)), 1 - np.exp(-block_s / GLIDE_S)
        self._volume_db = settings.volume_db
        if settings.output_full_scale_db_spl is not None:
            self._volume_db += settings.input_full_scale_db_spl - settings.output_full_scale_db_spl
        self._blocks = 0
        self._duck_db = 0.0
        self._gains = np.zeros((EARS, len(self._bank)))  # factors at the end of the last block
        self._overall = 0.0  # the same without an audiogram

    @property
    def delay_samples(self) -> int:
        """How much later sound comes out than it went in, besides what filters spread."""
        return self._limiter.delay

    def choose(self, scene: SceneName) -> None:
        """The program for what sounds now, unless the settings hold one."""
        self._fader.choose(scene)

    def alarm(self, on: bool, *, at_once: bool = True) -> None:
        """Whether the alarm's signal sounds; off: at once, or after the pulses that sound now."""
        if on:
            self._alarm.start()
        elif at_once:
            self._alarm.stop()
        else:
            self._alarm.finish()

    def step(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """One block of the microphone, float32 [block], mono; float32 [2, block] for the ears, within the limit."""
        sound = samples.astype(np.float64)
        if not np.isfinite(sound @ sound):
            sound = np.nan_to_num(sound, nan=0.0, posinf=0.0, neginf=0.0)
        howl_db = self.howling.step(sound, limited=self._limiter.reduction_db > LIMITED_DB)
        program = self._fader.step()
        cleaned = self._noise.step(sound, program.noise_db if self._settings.noise_reduction else 0.0)
        signal = self._alarm.step(self.block)
        duck_db = DUCK_DB if signal is not None else 0.0
        self._duck_db += self._glide * (duck_db - self._duck_db)
        self._blocks += 1
        fade = min(1.0, self._blocks / self._fade_blocks)
        # A howl is not let die away: its gain holds for all of the block. All else glides.
        overall_db = self._volume_db + program.gain_db + self._duck_db + howl_db
        overall = fade * fade * 10 ** (overall_db / 20)
        ears = self._amplified(cleaned, program.compression, overall)
        if signal is not None:
            ears = ears + signal * self._alarm_gain[: len(ears), None]
        out = np.empty((EARS, self.block), np.float32)
        out[:] = self._limiter.step(ears)
        return out

    def _amplified(self, sound: NDArray[np.float64], compression: float, overall: float) -> NDArray[np.float64]:
        """[ears, n], or [1, n] for both; from the gains before to those now, evenly over the block."""
        if self._fit is None:
            before, self._overall = self._overall, overall
            return (sound * (overall if before == overall else before + (overall - before) * self._ramp))[None]
        bands = self._bank.step(sound)
        gains = overall * 10 ** (self._fit.gain(self._levels.step(bands), compression) / 20)
        earlier, self._gains = self._gains, gains
        return earlier @ bands + (gains - earlier) @ (bands * self._ramp)

    def _signal(self, audiogram: Audiogram | None) -> tuple[AlarmSignal, NDArray[np.float64]]:
        """The alarm's signal, and each ear's gain for it: as for speech, at its frequency."""
        given = self._settings.alarm
        tone_hz = given.tone_hz or signal_hz(audiogram)
        band = int(np.searchsorted(self._bank.edges_hz, tone_hz)) - 1
        gain_db = np.zeros(EARS) if self._fit is None else np.maximum(0.0, self._fit.gain_db[:, band])
        signal = AlarmSignal(self.rate, tone_hz, float(10 ** (given.level_dbfs / 20)), given.pause_s)
        return signal, 10 ** (gain_db / 20)


def _rounded_down(level: float) -> float:
    """The next float32 that is no larger."""
    rounded = np.float32(level)
    return float(rounded if float(rounded) <= level else np.nextafter(rounded, np.float32(0)))
