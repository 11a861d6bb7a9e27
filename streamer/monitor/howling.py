"""Howling: what the headphones leak comes back into the microphone and grows. Noticed and stopped within 200 ms.

A howl stands far above everything else (van Waterschoot & Moonen: Fifty years of acoustic feedback control, Proceedings
of the IEEE 99(2), 2011: peak to neighbours, peak to average, persistence): one tone that keeps its place and does not
fall, or close neighbours that beat and grow, up to the limiter. So may a beep. What tells them apart is us: the output
is made 60 dB softer at once, and a tone that falls with it came from there, or ended just then, as a vowel may. A howl
comes back at the very same place: only where it does it was one, and the gain is turned down.

    LISTENING ──a lone tone lasts──► PROBING ──it fell, as before──► MUTED ──► LISTENING, at a lower gain
         ▲                              ├──it fell, the first time: kept in mind────────┤
         └──────────────────────────────┴──it stayed: a beep; this tone is left alone───┘
"""

import logging
from collections import deque
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.monitor.past import Past

LOOK_S: Final = 0.01
PERSISTENCE_S: Final = 0.06
STEADY_BINS: Final = 0.4  # a loop rings at one frequency; a voice glides
SLACK_DB: Final = 2.0  # what grows, or stands at the limit, does not fall by more
LOWEST_HZ: Final = 400.0  # small loudspeakers leak little below; there a sung vowel is nearly one tone
LEAST_DBFS: Final = -60.0  # of a tone that is worth it
LONE: Final = 0.9  # share of all power that lies in the tone's bins
GROWTH_S: Final = 0.16
GROWTH_DB: Final = 1.5  # from each quarter of it to the next, at least
CROWD: Final = 0.7  # the same around them: a loop that is far too loud rings at several tones, up to the limit
CROWD_WIDTH: Final = 0.1  # of the frequency, to each side
PROBE_DB: Final = -60.0
FALL_DB: Final = 20.0  # a tone that falls by so much while we are quiet was ours
MUTE_S: Final = 0.3
STEP_DB: Final = -6.0  # how much less gain there is after a howl
LEAST_DB: Final = -30.0
RECOVERY_DB_S: Final = 0.1  # the gain comes back by so much
LEFT_ALONE_S: Final = 3.0  # after it was last there, a beep's tone is suspect again
IN_MIND_S: Final = 10.0  # so long a tone that fell is expected back, at its place
CROWD_IN_MIND_S: Final = 1.5  # the same for close neighbours, any of which may be the loudest then
_TAIL_S: Final = 0.08  # what a room and its window of analysis need to fall, besides the loop's own delay

log = logging.getLogger(__name__)


class _State(Enum):
    LISTENING = "listening"
    PROBING = "probing"
    MUTED = "muted"


class HowlingGuard:
    """Watches what the microphone hears. `gain_db` is what the output must be turned down by, now."""

    def __init__(self, rate: int, block: int, loop_s: float) -> None:
        """`block`: samples of each step. `loop_s`: how long the devices hold sound on its way back to it, at most."""
        self._size = 1 << round(np.log2(rate * 0.0213))
        self._block_s, self.loop_s = block / rate, loop_s
        self._every = max(1, round(LOOK_S / self._block_s))  # blocks between two looks
        self._past = Past(max(self._size, block))
        self._window = np.hanning(self._size + 1)[:-1]
        self._scale = 2.0 / float(np.sum(self._window)) ** 2 * 2.0  # power in bins -> that of a full-scale tone
        self._lowest_bin = max(3, round(LOWEST_HZ * self._size / rate))
        self.howls = 0
        self.reset()

    def reset(self) -> None:
        """As if nothing had sounded; what a howl taught is forgotten too."""
        self._past.reset()
        self._blocks = 0
        self._bin, self._lasted_s, self._before_db, self._lone = 0, 0.0, -200.0, True
        self._grown: deque[float] = deque(maxlen=64)  # its level at the latest looks
        self._place, self._top_db = 0.0, -200.0  # of the tone: its frequency in bins, its level at most so far
        self._enter(_State.LISTENING)
        self._left_alone: dict[int, float] = {}  # bin -> seconds until it is suspect again
        self._fell: list[tuple[float, float]] = []  # places of tones that fell, and for how many seconds in mind
        self._less_db = 0.0  # after howls

    @property
    def gain_db(self) -> float:
        """0 or less."""
        if self._state is _State.LISTENING:
            return self._less_db
        return self._less_db + PROBE_DB

    def step(self, samples: NDArray[np.float64], *, limited: bool = False) -> float:
        """One block [n] of what the microphone hears; `gain_db` behind it. `limited`: the limiter is at work."""
        self._past.push(samples)
        self._since_s += self._block_s
        self._less_db = min(0.0, self._less_db + RECOVERY_DB_S * self._block_s)
        self._blocks += 1
        if self._blocks % self._every:
            return self.gain_db
        match self._state:
            case _State.LISTENING:
                self._listen(limited)
            case _State.PROBING if self._since_s >= self.loop_s + _TAIL_S:
                self._judge()
            case _State.MUTED if self._since_s >= MUTE_S:
                self._enter(_State.LISTENING)
            case _:
                pass
        return self.gain_db

    def _listen(self, limited: bool) -> None:
        peak, place, level_db, lone, crowded = self._tone(self._spectrum())
        look_s = self._every * self._block_s
        for tone in [*self._left_alone]:
            self._left_alone[tone] -= look_s
            if self._left_alone[tone] <= 0:
                del self._left_alone[tone]
        self._fell = [(place, left_s - look_s) for place, left_s in self._fell if left_s > look_s]
        if level_db < LEAST_DBFS or not crowded:
            self._lasted_s = 0.0
            self._grown.clear()
            return
        known = [tone for tone in self._left_alone if abs(tone - peak) <= 2]
        if known:
            self._left_alone[known[0]] = LEFT_ALONE_S
            self._lasted_s = 0.0
            return
        ringing = limited or (lone and abs(place - self._place) <= STEADY_BINS and level_db >= self._top_db - SLACK_DB)
        self._lasted_s = max(0.0, self._lasted_s + (look_s if ringing else -look_s / 2))  # several tones beat
        self._top_db = max(self._top_db, level_db) if ringing else level_db
        if self._grown and abs(peak - self._bin) > max(2, CROWD_WIDTH * self._bin):
            self._grown.clear()
        self._grown.append(level_db)
        self._bin, self._place = peak, place
        if self._lasted_s >= PERSISTENCE_S or self._grows(look_s):
            self._before_db, self._lone = max(self._grown), lone
            self._enter(_State.PROBING)

    def _grows(self, look_s: float) -> bool:
        """Whether the tone, or the crowd of them, became louder all the time, quarter by quarter of GROWTH_S."""
        looks = round(GROWTH_S / look_s)
        if len(self._grown) < looks:
            return False
        quarters = np.array(self._grown)[-looks // 4 * 4 :].reshape(4, -1).mean(axis=1)
        return bool(np.diff(quarters).min() >= GROWTH_DB)

    def _judge(self) -> None:
        power = self._spectrum()
        width = max(3, round(CROWD_WIDTH * self._bin))
        around = power[max(0, self._bin - width) : self._bin + width + 1]
        now_db = 10 * float(np.log10(around.max() * self._scale + 1e-20))
        self._lasted_s = 0.0
        if now_db > self._before_db - FALL_DB:
            self._left_alone[self._bin] = LEFT_ALONE_S
            self._enter(_State.LISTENING)
            return
        crowd = 0.0 if self._lone else CROWD_WIDTH * self._place
        known = any(
            abs(place - self._place) <= (crowd if left_s > IN_MIND_S - CROWD_IN_MIND_S else 0.0) + STEADY_BINS
            for place, left_s in self._fell
        )
        self._fell.append((self._place, IN_MIND_S))
        if known:
            self.howls += 1
            self._less_db = max(LEAST_DB, self._less_db + STEP_DB)
            self._enter(_State.MUTED)
            log.warning("howling stopped: the monitor is %.0f dB softer now", -self._less_db)
        else:
            self._enter(_State.LISTENING)

    def _enter(self, state: _State) -> None:
        self._state, self._since_s = state, 0.0
        self._grown.clear()
        log.debug("howling guard: %s", state.value)

    def _spectrum(self) -> NDArray[np.float64]:
        spectrum = np.fft.rfft(self._past.last(self._size) * self._window)
        power: NDArray[np.float64] = spectrum.real**2 + spectrum.imag**2
        return power

    def _tone(self, power: NDArray[np.float64]) -> tuple[int, float, float, bool, bool]:
        """The strongest bin, the tone's place between bins, its level in dBFS, whether it stands alone, and whether
        it and its neighbours do.
        """
        peak = self._lowest_bin + int(np.argmax(power[self._lowest_bin : -3]))
        inside = float(power[peak - 2 : peak + 3].sum())
        level_db = 10 * float(np.log10(float(power[peak]) * self._scale + 1e-20))
        low, top, high = np.log(power[peak - 1 : peak + 2] + 1e-30)
        # The parabola through these; at the lowest bin, where something lower may be louder, it has no top.
        place = peak + (0.5 * float((low - high) / (low - 2 * top + high)) if top > max(low, high) else 0.0)
        width = max(2, round(CROWD_WIDTH * peak))
        around, total = float(power[peak - width : peak + width + 1].sum()), float(power.sum() + 1e-20)
        return peak, place, level_db, inside > LONE * total, around > CROWD * total
