"""Which of a file's audio tracks is heard: the one that was asked for, else the one that its makers meant to be heard.

That is the default track; commentary and descriptions for the blind only where there is nothing else; and where that
track is silent at its beginning, the first that is not.
"""

from collections.abc import Callable
from dataclasses import dataclass

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from streamer.errors import InputError

SILENT_S = 60.0  # a track that is silent so long, while another is not, is not meant
SILENT_PEAK = 1e-4  # full scale 1: -80 dB

_ASIDE = (
    Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.karaoke
    | Disposition.descriptions | Disposition.clean_effects
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """The audio track `number` (from 1) of `count`. `notice`: what to tell people, nothing where there is but one."""

    number: int
    count: int
    notice: str = ""

    def stream(self, container: InputContainer) -> AudioStream:
        """The track in a container that was opened anew, or in the next link, which may have fewer."""
        tracks = container.streams.audio
        return tracks[min(self.number, len(tracks)) - 1]


def choose(container: InputContainer, wanted: int | None, where: str, sounds: Callable[[int], bool]) -> Choice:
    """Choose a track. `wanted`: what the user asked for, from 1. `sounds`: whether a track (from 1) is not silent.

    Raises InputError, with `where` (option and file) in front, when there is none or not the one that is wanted.
    """
    tracks = container.streams.audio
    count = len(tracks)
    if not count:
        raise InputError(f"{where}: has no audio track; give a file that has one")
    if wanted is not None and wanted > count:
        right = "1" if count == 1 else f"1 to {count}"
        raise InputError(f"--track {wanted}: {where} has {count} audio track{'s'[: count > 1]}; give {right}")
    if count == 1:
        return Choice(1, 1)
    if wanted is not None:
        return Choice(wanted, count, _notice(wanted, tracks, ""))
    order = sorted(range(1, count + 1), key=lambda number: (*_rank(tracks[number - 1]), number))
    number = next((number for number in order if sounds(number)), order[0])
    silent = "" if number == order[0] else f"; track {order[0]} is silent at its beginning"
    return Choice(number, count, _notice(number, tracks, silent))


def _rank(track: AudioStream) -> tuple[bool, bool]:
    title = f"{track.metadata.get('title', '')} {track.metadata.get('handler_name', '')}".lower()
    aside = bool(track.disposition & _ASIDE) or "commentary" in title
    return aside, not track.disposition & Disposition.default


def _notice(number: int, tracks: tuple[AudioStream, ...], silent: str) -> str:
    track = tracks[number - 1]
    language, title = track.metadata.get("language", "und"), track.metadata.get("title", "")
    told = ", ".join(filter(None, (language if language != "und" else "", title, f"{track.codec_context.channels} ch")))
    return f"audio track {number} of {len(tracks)} is heard ({told}){silent}; --track N takes another"
