"""Where sound comes from, as the command line names it: a microphone, a file, standard input, the bundled demo."""

from streamer.audio.block import AudioBlock, Source
from streamer.audio.clock import Clock
from streamer.audio.files import FileSource, demo_path
from streamer.audio.microphone import STALL_S, Microphone
from streamer.audio.pcm import StdinSource
from streamer.errors import InputError

__all__ = ["AudioBlock", "Source", "open_source"]


def open_source(
    device: int | str | None = None,
    input: str | None = None,
    *,
    realtime: bool = True,
    stall_s: float = STALL_S,
    clock: Clock | None = None,
) -> Source:
    """The source that `--device` or `--input` names; without either the default microphone.

    `realtime` False reads files and stdin as fast as they go; a microphone always is in real time. `stall_s`: silence
    of the device after which it is looked for again. Raises InputError of one line that names the option.
    """
    if input is None:
        return Microphone(device, clock=clock, stall_s=stall_s)
    if device is not None:
        raise InputError("--device and --input: give only one of them")
    if not input:
        raise InputError("--input: is empty; give an audio or video file, - for standard input, or demo")
    if input == "-":
        return StdinSource(realtime=realtime, clock=clock)
    return FileSource(demo_path("") if input == "demo" else input, realtime=realtime, clock=clock)
