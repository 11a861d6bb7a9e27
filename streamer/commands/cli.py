"""The command line: `python run_stream.py …`, `streamer run …` and the other subcommands.

Wrong options, settings and inputs end with status 2 and one line on stderr; nothing else prints a traceback unless
--debug (or STREAMER_DEBUG=1) asks for it. STREAMER_LOG=json makes each line of the log an object of JSON.
"""

import argparse
import atexit
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from streamer.errors import StreamerError, UsageError, meant

log = logging.getLogger("streamer")

WORKER = "worker"  # the thread that asks the model


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, which says what was probably meant."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but whoever knows the options of a command refuses what is none, not the program's parser."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._instead_of(unknown)}")
        return found, unknown

    def _instead_of(self, unknown: Sequence[str]) -> str:
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        given = next((argument for argument in unknown if argument.startswith("-")), None)
        if given is not None:
            return meant(given.partition("=")[0], options)
        many = next((str(action.metavar) for action in self._actions if action.nargs in ("+", "*")), None)
        if many is not None:
            return f"; give each {many} beside the others, with no option between them"
        return f"; did you mean --input {unknown[0]}?" if "--input" in options else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += meant(str(value), [str(choice) for choice in action.choices or ()])
            raise

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message, option first, and with what there is where a command is missing."""
        below = next((action.choices for action in self._actions if isinstance(action.choices, dict)), {})
        known = f": {', '.join(below)}; --help explains them" if below and "are required" in message else ""
        raise UsageError(message.removeprefix("argument ") + known)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a bar that is shown puts itself in between, and lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _JsonLines(logging.Formatter):
    """A line of the log as one object, for programs that read it: when, how grave, who says what, in which thread."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON. `time`: RFC 3339, UTC."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 done, 2 wrong usage, 1 anything else."""
    _fill_closed_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or bool(os.environ.get("STREAMER_DEBUG"))
    level = logging.DEBUG if debug else logging.WARNING
    form, handler = os.environ.get("STREAMER_LOG") or "text", _StderrHandler()
    handler.setFormatter(_JsonLines() if form == "json" else logging.Formatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if form not in ("text", "json"):
        return _say(UsageError(f"STREAMER_LOG: must be text or json; is {form!r}"), 2, debug)
    for name in () if debug else ("numba", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not debug:  # a traceback for each request that is no HTTP, whoever sends it
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    running = next((argument for argument in arguments if not argument.startswith("-")), "") in ("run", "serve")
    if running and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # until the program itself takes care of it
    return _carry_out(arguments, running, debug)


def _fill_closed_streams() -> None:
    """Whoever started us may have closed stdout or stderr: what is said goes nowhere then, and not into our files,
    the first of which would have their numbers.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for the rest of the program


def program(arguments: Sequence[str] | None = None) -> int:
    """`main` for a process of its own, which ends even where the model works and does not come back."""
    status = main(arguments)
    if any(thread.name == WORKER for thread in threading.enumerate()):
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
    except ModuleNotFoundError as error:
        return _say(
            StreamerError(f"{error.name} is not installed: `make setup` does; then use .venv/bin/python"), 1, debug
        )
    except Exception as error:  # noqa: BLE001  the top of the program
        return _say(error, 1, debug)


def parser() -> Parser:
    """The parser of all subcommands. Each imports what it needs when it is carried out, so that `--help` is quick."""
    from streamer.commands import alerts, bench, models, run, sounds, train

    top = Parser(prog="streamer", description="Captions and sounds of a room, live.", allow_abbrev=False)
    top.add_argument("--debug", action="store_true", help="log everything; show tracebacks")
    subcommands = top.add_subparsers(dest="name", required=True, metavar="COMMAND", parser_class=Parser)
    live = subcommands.add_parser("run", help="hear a microphone, a file or stdin, live", allow_abbrev=False)
    run.run_options(live)
    live.set_defaults(command=run.run)
    serve = subcommands.add_parser(
        "serve", help="hear those who send their sound, on one machine or a cluster", allow_abbrev=False
    )
    run.run_options(serve)
    serve.set_defaults(command=run.serve)
    look = _add(subcommands, "doctor", doctor, "what is missing on this machine, and the command that mends it")
    look.add_argument(
        "--monitor", action="store_true", help="the hearing aid instead: outputs, delay, underruns (20 s)"
    )
    _add(subcommands, "devices", run.devices, "list the capture devices")
    check = _add(subcommands, "check-config", check_config, "check settings files")
    check.add_argument("files", nargs="+", metavar="FILE", type=Path)
    _add(subcommands, "schema", schema, "the JSON schema of the settings")
    files = _add(subcommands, "transcribe", transcribe, "captions and sounds of whole files")
    files.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=Path,
        help="audio or video, or demo; with --cluster also folders, and lists (.csv)",
    )
    files.add_argument("--format", choices=("text", "srt", "vtt", "jsonl"), default="text", help="what to write (text)")
    files.add_argument("--output", metavar="FOLDER", type=Path, help="a file for each input; without: stdout")
    files.add_argument("--resume", action="store_true", help="leave out files whose result in FOLDER is newer")
    for option in ("model", "head", "language", "task", "prompt", "compute", "dtype"):
        files.add_argument(f"--{option}", help="as in `streamer run`")
    files.add_argument("--track", metavar="N", type=int, help="which audio track of each file, from 1")
    run.settings_options(files)
    run.cluster_options(files)
    alerts.add(subcommands)
    sounds.add(subcommands)
    _add(subcommands, "models", models.models, "what --model takes by name, and what of it is here")
    fetch = _add(subcommands, "pull", pull, "download and verify a model and its head")
    fetch.add_argument("name", metavar="NAME", help="nano, an official openai-whisper name, or a released head")
    bench.add(subcommands)
    train.add(subcommands)
    return top


def _add(
    subcommands: Any, name: str, command: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subcommands.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(command=command)
    return parser


def doctor(options: argparse.Namespace) -> int:
    """`streamer doctor`: a line for each check; status 1 when something is missing."""
    from streamer.commands.doctor import Verdict, checks
    from streamer.commands.monitor_doctor import checks as monitor_checks

    found = monitor_checks() if options.monitor else checks()
    marks = {Verdict.OK: "ok  ", Verdict.WARN: "warn", Verdict.MISSING: "MISS"}
    for check in found:
        sys.stdout.write(f"{marks[check.verdict]}  {check.what}: {check.detail}\n")
        if check.mend:
            sys.stdout.write(f"        mend: {check.mend}\n")
    return 1 if any(check.verdict is Verdict.MISSING for check in found) else 0


def check_config(options: argparse.Namespace) -> int:
    """`streamer check-config FILE…`: the first wrong key of the first wrong file, or one line for each good one."""
    from streamer.settings.config import validate
    from streamer.settings.section import read_file

    for path in options.files:
        validate(read_file(path), where=f"{path}: ")
        sys.stdout.write(f"{path}: ok\n")
    return 0


def schema(options: argparse.Namespace) -> int:
    """`streamer schema`: the JSON schema of the settings."""
    from streamer.settings.config import Settings

    sys.stdout.write(json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False) + "\n")
    return 0


def pull(options: argparse.Namespace) -> int:
    """`streamer pull NAME`: fetch and verify; the file's path is the last line."""
    from streamer.commands.run import downloading
    from streamer.model import catalog

    with downloading() as progress:
        path = catalog.pull(options.name, progress=progress)
    sys.stdout.write(f"{path}\n")
    return 0


def transcribe(options: argparse.Namespace) -> int:
    """`streamer transcribe FILE…`: status 2 when a file cannot be read; the others are done all the same."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from streamer.commands import run
    from streamer.commands.transcribe import check_targets, is_done, target_of
    from streamer.commands.transcribe import transcribe as transcribe_files
    from streamer.settings.config import resolve

    settings = run.with_known_language(resolve(options.config, options.set, run.given_settings(options)))
    if settings.cluster.address is not None:
        from streamer.commands.bulk import transcribe_spread

        return transcribe_spread(settings, options.files, options.format, options.output, resume=options.resume)
    check_targets(options.files, options.format, options.output, resume=options.resume)
    files = [
        file
        for file in options.files
        if not (options.resume and is_done(file, target_of(file, options.format, options.output)))
    ]
    if not files:
        sys.stderr.write(
            f"streamer: nothing is left to do: all results in {options.output} are newer than their files\n"
        )
        return 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    console = Console(stderr=True)
    shown = console.is_terminal and (options.output is not None or not sys.stdout.isatty())  # text is progress enough
    model = run.load(settings, live=False)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown, redirect_stdout=False
    ) as bar:
        tasks: dict[Path, Any] = {}

        def progress(file: Path, done_s: float, total_s: float | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file.name, total=None)
            bar.update(tasks[file], completed=done_s, total=total_s)

        def tell(line: str) -> None:
            bar.console.print(f"streamer: {line}", markup=False, highlight=False, soft_wrap=True)

        failed = transcribe_files(model, settings, files, options.format, options.output, progress=progress, tell=tell)
    if options.output is not None:
        sys.stderr.write(f"streamer: {len(files) - failed} of {len(files)} files are transcribed in {options.output}\n")
    return 2 if failed else 0


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
    sys.exit(program())
