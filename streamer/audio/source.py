"""Where sound comes from, as the command line names it: a microphone, a file, a pipe, the bundled demo."""

from streamer.audio.block import AudioBlock, Source
from streamer.audio.clock import Clock
from streamer.audio.files import FileSource, demo_path
from streamer.audio.microphone import STALL_S, Microphone
from streamer.audio.stdin import StdinSource, is_pipe
from streamer.errors import InputError

__all__ = ["AudioBlock", "Source", "open_source"]


def open_source(
    device: int | str | None = None,
    input: str | None = None,
    *,
    realtime: bool = True,
    stall_s: float = STALL_S,
    clock: Clock | None = None,
    track: int | None = None,
) -> Source:
    """The source that `--device` or `--input` names; without either the default microphone.

    `realtime` False reads files and stdin as fast as they go; a microphone always is in real time. `stall_s`: silence
    of the device after which it is looked for again. `track`: which audio track of a file, from 1. Raises InputError of
    one line that names the option.
    """
    if input is None and track is not None:
        raise InputError(f"--track {track}: a microphone has no tracks; give it with --input FILE")
    if input is None:
        return Microphone(device, clock=clock, stall_s=stall_s)
    if device is not None:
        raise InputError("--device and --input: give only one of them")
    if not input:
        raise InputError("--input: is empty; give an audio or video file, - for standard input, or demo")
    if input == "-":
        return StdinSource(realtime=realtime, clock=clock, track=track)
    path = demo_path("") if input == "demo" else input
    if is_pipe(path):
        return StdinSource.named(path, realtime=realtime, clock=clock, track=track)
    return FileSource(path, realtime=realtime, clock=clock, track=track)
