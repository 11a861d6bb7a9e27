"""`streamer models`: what `--model` takes by name, what each knows, and whether it is on this machine already."""

import argparse
import sys


def models(options: argparse.Namespace) -> int:
    """A line for each name; nothing is fetched."""
    from streamer.model import catalog

    for name in (catalog.BUNDLED, *catalog.official_names()):
        here = "here" if catalog.on_disk(name) is not None else "to be fetched"
        sys.stdout.write(f"{name:15s} {here:14s} {_spoken(name):23s} {_named(name)}\n")
    sys.stdout.write(
        "\n`--model auto`, the default, takes the best that this machine carries; `streamer pull NAME` fetches one in\n"
        "advance; a file or folder with weights of your own can be given instead of a name.\n"
    )
    return 0


def _spoken(name: str) -> str:
    """Which languages it understands."""
    from streamer.model import catalog

    if name == catalog.BUNDLED:
        return "some English words"
    return "English" if name.endswith(".en") else "99 languages"


def _named(name: str) -> str:
    """What names sounds beside it."""
    from streamer.model import catalog

    if name == catalog.BUNDLED or name in catalog.OWN_HEADS:
        return "sounds: yes"
    return "captions only" if catalog.head_of(name) is None else "sounds: where Whisper-AT's head can be fetched"
