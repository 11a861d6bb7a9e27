"""Which of a file's audio tracks is heard: the one that was asked for, else the one that its makers meant to be heard.

That is the default track; commentary and descriptions for the blind only where there is nothing else; and where that
track is silent at its beginning, the first that is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamer.errors import InputError

SILENT_S = 60.0  # a track that is silent so long, while another is not, is not meant
SILENT_PEAK = 1e-4  # full scale 1: -80 dB


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """What a file says of one audio track. `aside`: marked as commentary, description for the blind or the like;
    `decodable`: there is a decoder for it here.
    """

    default: bool = False
    aside: bool = False
    language: str = ""
    title: str = ""
    channels: int = 1
    decodable: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """The audio track `number` (from 1) of `count`. `notice`: what to tell people, nothing where there is but one."""

    number: int
    count: int
    notice: str = ""


def choose(tracks: Sequence[TrackFacts], wanted: int | None, where: str, sounds: Callable[[int], bool]) -> Choice:
    """Choose a track. `wanted`: what the user asked for, from 1. `sounds`: whether a track (from 1) is not silent.

    Raises InputError, with `where` (option and file) in front, when there is none or not the one that is wanted.
    """
    count = len(tracks)
    if not count:
        raise InputError(f"{where}: has no audio track; give a file that has one")
    if wanted is not None and wanted > count:
        right = "1" if count == 1 else f"1 to {count}"
        raise InputError(f"--track {wanted}: {where} has {count} audio track{'s'[: count > 1]}; give {right}")
    if not any(track.decodable for track in (tracks if wanted is None else tracks[wanted - 1 : wanted])):
        which = "its sound" if wanted is None else f"the sound of --track {wanted}"
        raise InputError(f"{where}: {which} is in a coding that has no decoder here; convert it to wav or flac")
    if count == 1:
        return Choice(1, 1)
    if wanted is not None:
        return Choice(wanted, count, _notice(wanted, tracks, ""))
    able = [number for number in range(1, count + 1) if tracks[number - 1].decodable]
    order = sorted(able, key=lambda number: (*_rank(tracks[number - 1]), number))
    number = next((number for number in order if sounds(number)), order[0])
    silent = "" if number == order[0] else f"; track {order[0]} is silent at its beginning"
    return Choice(number, count, _notice(number, tracks, silent))


def _rank(track: TrackFacts) -> tuple[bool, bool]:
    return track.aside or "commentary" in track.title.lower(), not track.default


def _notice(number: int, tracks: Sequence[TrackFacts], silent: str) -> str:
    track = tracks[number - 1]
    language = "" if track.language == "und" else track.language
    told = ", ".join(filter(None, (language, track.title, f"{track.channels} ch")))
    return f"audio track {number} of {len(tracks)} is heard ({told}){silent}; --track N takes another"
