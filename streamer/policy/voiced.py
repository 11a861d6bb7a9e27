"""Which 20 ms frames the gate took for a voice, and which audio the words of a hypothesis lie over (pure).

The frames are for word times, and for where a window may begin. Word times come from a warp of the
attention over all of the window (`streamer.model.decoding.alignment`). Behind a forced prefix a hypothesis is often one
or two words long; the warp then knows the order but hardly the place, while the frame that a word's last token attended
most is still right. So each word reaches to that frame, and none beyond the next word's.
"""

from dataclasses import replace

from streamer.events import FRAME_SAMPLES
from streamer.policy.policies import Words


class VoicedTrack:
    """The flags of the last 40 s and more; what is older counts as unknown."""

    KEEP_FRAMES = 2000

    def __init__(self, frame_samples: int, start_sample: int = 0) -> None:
        """`start_sample`: where the first frame that will be appended begins."""
        self._frame_samples = frame_samples
        self._flags: list[bool] = []
        self._first = start_sample // frame_samples  # index of the first kept frame

    def append(self, flags: tuple[bool, ...]) -> None:
        """Take the next frames, in order."""
        self._flags.extend(flags)
        surplus = len(self._flags) - self.KEEP_FRAMES
        if surplus > self.KEEP_FRAMES // 4:
            del self._flags[:surplus]
            self._first += surplus

    @property
    def last_end(self) -> int:
        """End of the last voiced frame; where the kept frames begin, or 0, when none of them is voiced."""
        last = next((index for index in range(len(self._flags), 0, -1) if self._flags[index - 1]), 0)
        return (self._first + last) * self._frame_samples

    def samples(self, start_sample: int, end_sample: int) -> int:
        """How many samples of the frames in [start_sample, end_sample) are voiced, of those that are kept."""
        first = max(0, start_sample // self._frame_samples - self._first)
        last = max(0, end_sample // self._frame_samples - self._first)
        return sum(self._flags[first:last]) * self._frame_samples

    def first_voiced(self, start_sample: int, end_sample: int) -> int:
        """Start of the first voiced frame in [start_sample, end_sample), `start_sample` when none is known."""
        first = max(0, start_sample // self._frame_samples - self._first)
        last = end_sample // self._frame_samples - self._first
        for index in range(first, min(last, len(self._flags))):
            if self._flags[index]:
                return max(start_sample, (index + self._first) * self._frame_samples)
        return start_sample

    def pause_before(self, sample: int, earliest: int, least_samples: int) -> int | None:
        """A point in the last pause of `least_samples` or more that begins in [earliest, sample); None without one.

        The point lies at the pause's end less half of `least_samples`, and never behind `sample`.
        """
        index = min(sample // self._frame_samples - self._first, len(self._flags))
        lowest = max(0, earliest // self._frame_samples - self._first)
        least = -(-least_samples // self._frame_samples)
        length = 0
        while index > lowest:
            index -= 1
            length = 0 if self._flags[index] else length + 1
            if length >= least:
                end = index + length
                return max(0, (end + self._first) * self._frame_samples - least_samples // 2)
        return None


def placed(words: Words) -> Words:
    """The words with times that hold what was attended, leaps apart; their order and that of their times stay."""
    words = _without_leaps(words)
    found, earliest = [], 0
    for index, word in enumerate(words):
        attended = word.attended_sample
        start = max(earliest, min(word.start_sample, attended))
        end = max(word.end_sample, start, attended + FRAME_SAMPLES // 2)
        following = words[index + 1].attended_sample if index + 1 < len(words) else end
        if following > attended:
            end = min(end, max(following, start))
        found.append(replace(word, start_sample=start, end_sample=end))
        earliest = end
    return tuple(found)


def _without_leaps(words: Words) -> Words:
    """The words, none attended outside of what its neighbours were: where the attention leaps for one word alone, as it
    does in what is said alike several times, the decoder did not lose its place.
    """
    places = [index for index, word in enumerate(words) if not word.is_mark]
    found = list(words)
    for before, at, behind in zip(places, places[1:], places[2:], strict=False):
        attended = sorted(word.attended_sample for word in (found[before], words[at], words[behind]))[1]
        found[at] = replace(words[at], attended_sample=attended)
    return tuple(found)
