"""Captions and sounds of a room, live: `python run_stream.py --device 0`. The same options as `streamer run`."""

import sys

from streamer.commands.cli import program

if __name__ == "__main__":
    sys.exit(program(["run", *sys.argv[1:]]))
