"""The encoder's taps of a whole recording, joined over its windows, so that tags look back as far as live ones do.

In half steps of 0.2 s on a fixed grid: every whole second ends on it, and two neighbours make a tap step. Each half
step is that of the first window that holds it. The offline engine's; no more is kept than the longest span needs.
"""

import torch
from torch import Tensor

from streamer.events import SAMPLE_RATE
from streamer.model.whisper import STEP_SAMPLES, span_steps
from streamer.policy.seeking import Window

HALF_STEP_FRAMES = 20  # mel frames
SECOND = 5  # half steps
KEPT = 50  # half steps: the longest span that is judged, 10 s


class TapTrack:
    """One recording's. `end`: half steps so far; `judged`: whole seconds whose taps were handed out."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, frame: int) -> None:
        """Forget what there is; the next window is the first that holds what follows mel frame `frame`."""
        self.end = frame // HALF_STEP_FRAMES
        self.judged = self.end // SECOND
        self._taps: Tensor | None = None

    def due(self, window: Window) -> tuple[int, int]:
        """What the window has that is new: the encoder position of its first half step, and how many there are."""
        first = (self.end * HALF_STEP_FRAMES - window.start) // 2
        return first, max(window.end // HALF_STEP_FRAMES - self.end, 0)

    def append(self, taps: Tensor | None) -> None:
        """Take what was due: [layers, half steps, d], or None where nothing was."""
        if taps is None:
            return
        self.end += taps.shape[1]
        self._taps = taps if self._taps is None else torch.cat([self._taps, taps], dim=1)

    def seconds(self) -> range:
        """The ends, in seconds, that are to be judged now. What is older than they need is forgotten."""
        found = range(self.judged + 1, self.end // SECOND + 1)
        self.judged = max(self.judged, self.end // SECOND)
        return found

    def trim(self) -> None:
        """Forget what no later second needs."""
        if self._taps is not None:
            self._taps = self._taps[:, -(KEPT + SECOND) :].clone()

    def steps(self, second: int, spans_s: tuple[float, ...]) -> list[int]:
        """The spans that can be judged at the end of a second, in tap steps, shortest first."""
        assert self._taps is not None
        known = (self._taps.shape[1] - (self.end - second * SECOND)) // 2
        return sorted({max(1, min(span_steps(span), known)) for span in spans_s})

    def taps(self, second: int, steps: int) -> Tensor:
        """The last tap steps before the end of a second: [layers, steps, d]."""
        assert self._taps is not None
        last = self._taps.shape[1] - (self.end - second * SECOND)
        layers, _, width = self._taps.shape
        return self._taps[:, last - 2 * steps : last].reshape(layers, steps, 2, width).mean(2)


def span_samples(second: int, steps: int) -> tuple[int, int]:
    """The samples that so many tap steps before the end of a second stand for."""
    end = second * SAMPLE_RATE
    return max(end - steps * STEP_SAMPLES, 0), end
