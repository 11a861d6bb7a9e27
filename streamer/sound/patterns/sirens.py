"""Sirens in the signal itself: wail, yelp and hi-lo, as a small network (`siren_net`) hears them.

Every 128 ms it judges the last four seconds. A siren sounds when it is sure for some looks in a row, and for as long
as it hears one at all; that it may be one is worth saying beside the tagger. A hi-lo has to have had two tones
(`streamer.sound.patterns.hilo_tones`).
"""

import numpy as np

from streamer.sound.patterns.cadence_state import CANDIDATE_SCORE, PLAIN_SCORE, SURE_SCORE, CadenceKind, Pattern
from streamer.sound.patterns.hilo_tones import took_turns
from streamer.sound.patterns.siren_net import BANDS, CLASSES, STEP_FRAMES, STEPS, SirenNet, band_levels, bundled
from streamer.sound.patterns.spectrum import FLOOR_DB, FRAME_HOP, FRAME_SAMPLES, Decibels

WINDOW_FRAMES = STEPS * STEP_FRAMES
LOOK_FRAMES = 8  # 128 ms
SURE, SURE_LOOKS = 0.98, 4  # so sure for so many looks in a row: a siren
PLAIN_LOOKS = 6  # after so many it is plain enough to count while the tagger hears something else
MAYBE = 0.95  # it may be one, worth saying beside the tagger
HEARD = 0.5  # one that sounds goes on
TIMEOUT_S = 2.0  # not heard for so long: over
SEEN_AFTER = 7_200  # samples: so much of a siren the network needs; it began so long before it was seen
CANDIDATE_SAMPLES = 6_400


class SirenDetector:
    """Wail, yelp and hi-lo."""

    def __init__(self) -> None:
        self.patterns = tuple(Pattern(CadenceKind(name), TIMEOUT_S) for name in CLASSES[1:])
        self._net: SirenNet = bundled()
        self._sure = 0  # looks in a row
        self._since: int | None = None  # end of the first of the looks in a row that heard one
        self.reset()

    def reset(self) -> None:
        """Forget the spectrogram (a gap), not the sirens that sound."""
        self._levels: Decibels = np.full((WINDOW_FRAMES, BANDS), FLOOR_DB, np.float32)
        self._sure, self._since = 0, None

    def push(self, levels: Decibels, first_frame: int) -> None:
        """Take frames number `first_frame` and following: float32 [n, 257] dB."""
        found = np.concatenate([self._levels, band_levels(levels)])
        for offset in range(1, levels.shape[0] + 1):
            frame = first_frame + offset - 1
            if frame % LOOK_FRAMES != LOOK_FRAMES - 1:
                continue
            now = frame * FRAME_HOP + (FRAME_SAMPLES + FRAME_HOP) // 2
            self._look(found[offset : offset + WINDOW_FRAMES], now)
            for pattern in self.patterns:
                pattern.tick(now)
        self._levels = found[levels.shape[0] :]

    def _look(self, levels: Decibels, now: int) -> None:
        """Judge the levels [WINDOW_FRAMES, BANDS] up to sample `now`."""
        chances = self._net(levels)
        heard = 1 - float(chances[0])
        self._sure = self._sure + 1 if heard >= SURE else 0
        if heard < HEARD:
            self._since = None
            return
        self._since = now if self._since is None else self._since
        onset = max(0, self._since - SEEN_AFTER)
        likely = self.patterns[int(np.argmax(chances[1:]))]
        if self._sure >= SURE_LOOKS and (likely.kind is not CadenceKind.HILO or took_turns(levels)):
            likely.confirm(onset, now, PLAIN_SCORE if self._sure >= PLAIN_LOOKS else SURE_SCORE)
        for pattern in self.patterns:
            if pattern.onset is not None:
                pattern.confirm(onset, now, 0.0)
        if heard >= MAYBE and likely.onset is None:
            likely.propose(onset, now, now + CANDIDATE_SAMPLES, CANDIDATE_SCORE)
