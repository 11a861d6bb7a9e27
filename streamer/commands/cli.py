"""The command line: `python run_stream.py …`, `streamer run …` and the other subcommands.

Wrong options, settings and inputs end with status 2 and one line on stderr; nothing else prints a traceback unless
--debug (or STREAMER_DEBUG=1) asks for it.
"""

import argparse
import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from streamer.errors import StreamerError, UsageError

log = logging.getLogger("streamer")

WORKER = "worker"  # the thread that asks the model

# Options that are settings under another name: option -> path of the setting.
SETTINGS = {
    "device": "audio.device",
    "input": "audio.input",
    "track": "audio.track",
    "speed": "audio.speed",
    "model": "model.name",
    "head": "model.head",
    "compute": "model.compute",
    "dtype": "model.dtype",
    "language": "speech.language",
    "task": "speech.task",
    "prompt": "speech.prompt",
    "jsonl": "output.jsonl",
    "srt": "output.srt",
    "vtt": "output.vtt",
    "stay": "output.stay",
    "quiet": "output.quiet",
    "host": "server.host",
    "port": "server.port",
    "token": "server.token",
    "tls_cert": "server.tls_cert",
    "tls_key": "server.tls_key",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message, option first."""
        raise UsageError(message.removeprefix("argument "))


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a bar that is shown puts itself in between, and lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 wrong usage, 1 anything else."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or bool(os.environ.get("STREAMER_DEBUG"))
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[_StderrHandler()], force=True)
    for name in () if debug else ("numba", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    running = next((argument for argument in arguments if not argument.startswith("-")), "") == "run"
    if running and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # until the program itself takes care of it
    status = _carry_out(arguments, running, debug)
    if running and any(thread.name == WORKER for thread in threading.enumerate()):
        atexit.register(_leave_at_once, status)
    return status


def _carry_out(arguments: Sequence[str], running: bool, debug: bool) -> int:
    try:
        options = parser().parse_args([argument for argument in arguments if argument != "--debug"])
        return int(options.command(options) or 0)
    except UsageError as error:
        return _say(error, 2, debug)
    except StreamerError as error:
        return _say(error, 1, debug)
    except KeyboardInterrupt:
        return 0 if running else 130  # nothing was heard yet: nothing to flush
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the top of the program
        return _say(error, 1, debug)


def parser() -> Parser:
    """The parser of all subcommands."""
    from streamer.commands import run as commands

    top = Parser(prog="streamer", description="Captions and sounds of a room, live.", allow_abbrev=False)
    top.add_argument("--debug", action="store_true", help="log everything; show tracebacks")
    commands_of = top.add_subparsers(dest="name", required=True, metavar="COMMAND", parser_class=Parser)
    run = commands_of.add_parser("run", help="hear a microphone, a file or stdin, live", allow_abbrev=False)
    run_options(run)
    run.set_defaults(command=run_command)
    commands.add(commands_of)
    return top


def run_options(run: Parser) -> None:
    """The options of `run`, as DESIGN's table has them."""
    sound = run.add_argument_group("sound", "one source; several at once stand under `sources:` in --config FILE")
    sound.add_argument("--device", metavar="N|NAME", help="capture device by index or by a part of its name")
    sound.add_argument("--list-devices", action="store_true", help="list the capture devices and leave")
    sound.add_argument("--input", metavar="FILE|-|demo", help="a file, raw PCM or a file on stdin, or the demo")
    sound.add_argument("--track", metavar="N", help="which audio track of the file, from 1; else the default one")
    sound.add_argument("--speed", metavar="1|0", help="files in real time (1) or as fast as it goes (0)")
    model = run.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help="auto (what this machine carries), nano, an official name, a .pt, or a CTranslate2 or transformers folder",
    )
    model.add_argument("--head", metavar="PATH|auto|none", help="tagging head; none: captions only")
    model.add_argument("--language", metavar="CODE[,CODE]", help="spoken language (en), or those that may be (en,de)")
    model.add_argument("--task", metavar="transcribe|translate", help="translate: into English")
    model.add_argument("--prompt", metavar="TEXT", help="names and jargon that may be said")
    model.add_argument("--compute", metavar="auto|cpu|cuda", help="where to compute")
    model.add_argument("--dtype", metavar="auto|float32|bfloat16|float16|int8", help="in which precision")
    settings = run.add_argument_group("settings")
    settings.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML settings")
    settings.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    settings.add_argument("--print-config", action="store_true", help="print the settings in force and leave")
    out = run.add_argument_group("output")
    out.add_argument("--jsonl", metavar="PATH|-", help="write events; - is stdout")
    out.add_argument("--srt", metavar="PATH", help="write captions as SubRip; several sources: PATH.NAME.srt")
    out.add_argument("--vtt", metavar="PATH", help="write captions as WebVTT; several sources: PATH.NAME.vtt")
    out.add_argument("--stay", action="store_true", default=None, help="keep the server up after the end of a file")
    out.add_argument("--quiet", action="store_true", default=None, help="no terminal view")
    server = run.add_argument_group("server")
    server.add_argument("--host", help="address to listen on (127.0.0.1)")
    server.add_argument("--port", help="port to listen on (8765)")
    server.add_argument("--token", help="what clients must present; demanded when others can reach the address")
    server.add_argument("--tls-cert", metavar="PATH", help="certificate (PEM)")
    server.add_argument("--tls-key", metavar="PATH", help="its key (PEM)")
    server.add_argument("--no-server", action="store_true", help="no websocket and page server")


def run_command(options: argparse.Namespace) -> int:
    """`streamer run`."""
    began_s = time.monotonic()
    from streamer.commands import run as commands
    from streamer.settings.config import resolve

    if options.list_devices:
        return commands.devices(options)
    given = {path: value for name, path in SETTINGS.items() if (value := getattr(options, name)) is not None}
    settings = resolve([Path(path) for path in options.config], options.set, _typed(given, options))
    if options.print_config:
        sys.stdout.write(settings.to_yaml())
        return 0
    from streamer.runtime.inputs import named_senders, open_inputs
    from streamer.runtime.supervisor import Program

    settings = commands.with_known_language(settings)
    plans = [
        replace(plan, settings=commands.with_known_language(plan.settings, plan.path)) for plan in settings.plans()
    ]
    inputs, audio = open_inputs(plans, server=settings.server.enabled), settings.audio
    if audio.input == "demo" and audio.speed == 1 and options.stay is None:
        settings = settings.model_copy(update={"output": settings.output.model_copy(update={"stay": True})})
    program = Program(
        settings,
        inputs,
        lambda tell: commands.load(settings, plans, tell),
        senders=named_senders(plans),
        port_given=options.port is not None,
        began_s=began_s,
    )
    return program.run()


def _typed(given: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Numbers where settings are numbers; a wrong one is refused with the option's own name."""
    for option, path in SETTINGS.items():
        value = given.get(path)
        if value is None:
            continue
        if option in ("speed", "port"):
            if not (value.isascii() and value.isdigit()) or (option == "speed" and value not in ("0", "1")):
                right = "1 (real time) or 0 (as fast as it goes)" if option == "speed" else "a number from 0 to 65535"
                raise UsageError(f"--{option}: must be {right}, is {value!r}")
            given[path] = int(value)
        elif option == "track":
            if not (value.isascii() and value.isdigit() and int(value)):
                raise UsageError(f"--track: must be the number of an audio track, from 1, is {value!r}")
            given[path] = int(value)
        elif option == "device" and value.isascii() and value.isdigit():
            given[path] = int(value)
        elif option in CHOICES and value not in CHOICES[option]:
            raise UsageError(f"--{option}: must be one of {', '.join(CHOICES[option])}, is {value!r}")
    if options.no_server:
        given["server.enabled"] = False
    return given


CHOICES = {
    "task": ("transcribe", "translate"),
    "compute": ("auto", "cpu", "cuda"),
    "dtype": ("auto", "float32", "bfloat16", "float16", "int8"),
}


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _leave_at_once(status: int) -> None:
    """End the process while the model still works: a thread inside of torch would make the interpreter's end abort."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _say(error: Exception, status: int, debug: bool) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    log.error("streamer: %s", text if isinstance(error, StreamerError) else f"{type(error).__name__}: {text}")
    if debug:
        log.error("", exc_info=error)
    return status


if __name__ == "__main__":
    sys.exit(main())
