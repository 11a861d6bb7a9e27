"""The subcommands of `streamer` beside `run`. Each imports what it needs, so that `--help` is quick."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.commands import alerts as alert_commands
from streamer.commands import bench as bench_commands
from streamer.commands import train as training_commands
from streamer.errors import UsageError
from streamer.model.loading import LoadStep, Tell
from streamer.settings.config import ModelSettings, Settings, SourcePlan, validate
from streamer.settings.section import read_file

if TYPE_CHECKING:
    from streamer.model.choice import Wish
    from streamer.model.download import Progress
    from streamer.model.whisper import Model

log = logging.getLogger(__name__)


def add(subcommands: Any) -> None:
    """Add all subcommands to argparse's subparsers."""
    _add(subcommands, "doctor", doctor, "what is missing on this machine, and the command that mends it")
    _add(subcommands, "devices", devices, "list the capture devices")
    check = _add(subcommands, "check-config", check_config, "check settings files")
    check.add_argument("files", nargs="+", metavar="FILE", type=Path)
    _add(subcommands, "schema", schema, "the JSON schema of the settings")
    files = _add(subcommands, "transcribe", transcribe, "captions and sounds of whole files")
    files.add_argument("files", nargs="+", metavar="FILE", type=Path, help="audio or video")
    files.add_argument("--format", choices=("text", "srt", "vtt", "jsonl"), default="text", help="what to write (text)")
    files.add_argument("--output", metavar="FOLDER", type=Path, help="a file for each input; without: stdout")
    files.add_argument("--resume", action="store_true", help="leave out files whose result in FOLDER is newer")
    for option in ("model", "head", "language", "task", "prompt", "compute", "dtype"):
        files.add_argument(f"--{option}", help="as in `streamer run`")
    files.add_argument("--track", metavar="N", type=int, help="which audio track of each file, from 1")
    files.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML settings")
    files.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    alert_commands.add(subcommands)
    fetch = _add(subcommands, "pull", pull, "download and verify a model and its head")
    fetch.add_argument("name", metavar="NAME", help="nano, an official openai-whisper name, or a released head")
    bench_commands.add(subcommands)
    training_commands.add(subcommands)


def _add(
    subcommands: Any, name: str, command: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subcommands.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(command=command)
    return parser


def doctor(options: argparse.Namespace) -> int:
    """`streamer doctor`: a line for each check; status 1 when something is missing."""
    from streamer.commands.doctor import Verdict, checks

    found = checks()
    marks = {Verdict.OK: "ok  ", Verdict.WARN: "warn", Verdict.MISSING: "MISS"}
    for check in found:
        sys.stdout.write(f"{marks[check.verdict]}  {check.what}: {check.detail}\n")
        if check.mend:
            sys.stdout.write(f"        mend: {check.mend}\n")
    return 1 if any(check.verdict is Verdict.MISSING for check in found) else 0


def devices(options: argparse.Namespace) -> int:
    """`streamer devices` and `--list-devices`: index, name, host API, channels, native rate; * marks the default."""
    from streamer.commands.doctor import list_devices

    rows = list_devices()
    for device in rows:
        mark = "*" if device.default else " "
        sys.stdout.write(
            f"{mark}{device.index:3d}  {device.name}  [{device.host_api}, {device.channels} ch, {device.rate} Hz]\n"
        )
    if not rows:
        sys.stderr.write("no capture device was found; `streamer doctor` says what may be missing\n")
    return 0


def check_config(options: argparse.Namespace) -> int:
    """`streamer check-config FILE…`: the first wrong key of the first wrong file, or one line for each good one."""
    for path in options.files:
        validate(read_file(path), where=f"{path}: ")
        sys.stdout.write(f"{path}: ok\n")
    return 0


def schema(options: argparse.Namespace) -> int:
    """`streamer schema`: the JSON schema of the settings."""
    sys.stdout.write(json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False) + "\n")
    return 0


def pull(options: argparse.Namespace) -> int:
    """`streamer pull NAME`: fetch and verify; the file's path is the last line."""
    from streamer.model import catalog

    with DownloadBar() as progress:
        path = catalog.pull(options.name, progress=progress)
    sys.stdout.write(f"{path}\n")
    return 0


def transcribe(options: argparse.Namespace) -> int:
    """`streamer transcribe FILE…`: status 2 when a file cannot be read; the others are done all the same."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from streamer.commands.cli import SETTINGS
    from streamer.commands.transcribe import check_targets, is_done, target_of
    from streamer.commands.transcribe import transcribe as transcribe_files
    from streamer.settings.config import resolve

    given = {path: found for name, path in SETTINGS.items() if (found := getattr(options, name, None)) is not None}
    settings = with_known_language(resolve([Path(path) for path in options.config], options.set, given))
    check_targets(options.files, options.format, options.output, resume=options.resume)
    files = [
        file
        for file in options.files
        if not (options.resume and is_done(file, target_of(file, options.format, options.output)))
    ]
    if not files:
        return 0
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    shown = options.output is not None or not sys.stdout.isatty()  # text that comes is progress enough
    console = Console(stderr=True)
    model = load(settings, live=False)
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
    return 2 if failed else 0


def load(
    settings: Settings, plans: Sequence[SourcePlan] = (), tell: Tell | None = None, *, live: bool = True
) -> "Model":
    """The model of the settings. Raises CheckpointError, DownloadError, UsageError.

    `plans`: the sources whose languages it must know too. `tell`: what is being done; None shows it on stderr.
    `live`: it may be made to hear short windows and be computed in 8 bits, where the settings leave that open; whole
    recordings are read with the weights as they are.
    """
    import torch

    from streamer.model.choice import load_model
    from streamer.output.terminal import LoadingView

    given = settings.model
    torch.set_num_threads(given.threads or max(1, min(8, torch.get_num_threads())))
    head = None if given.head == "none" else given.head
    notes: list[str] = []
    wish = _wish([settings, *(plan.settings for plan in plans)])
    view = LoadingView(sys.stderr, brief=True) if tell is None else None
    try:
        model = load_model(
            given.name,
            head=head,
            device=given.compute,
            dtype=given.dtype if live else _unrounded(given),
            short_windows=live and given.context != "padded",
            wish=wish,
            tell=view.show if view else tell or _silently,
            note=notes.append,
        )
    finally:
        if view:
            view.close()
        for note in notes:
            log.warning("streamer: %s", note)
    _check_language(settings, model)
    for plan in plans:
        _check_language(plan.settings, model, plan.path)
    return model


def _unrounded(given: ModelSettings) -> str:
    """The precision of the settings, where that is left open not that of 8-bit products."""
    import torch

    from streamer.model.checkpoint import compute_target

    rounded = given.dtype == "auto" and compute_target(given.compute)[1] == torch.int8
    return "float32" if rounded else given.dtype


def _silently(step: LoadStep) -> None:
    return


def _wish(given: Sequence[Settings]) -> "Wish":
    from streamer.model.choice import Wish

    spoken = [settings.speech for settings in given]
    languages = frozenset(code for speech in spoken for code in speech.languages or ("",))
    return Wish(languages, translate=any(speech.task == "translate" for speech in spoken))


def with_known_language(settings: Settings, path: str = "") -> Settings:
    """The settings with language codes where names were given; UsageError for no language of Whisper's.

    `path`: of the source whose settings they are, "" for those of all.
    """
    from streamer.model.languages import language_codes

    return settings.with_languages(language_codes(settings.speech.languages, _option("language", path)))


def _check_language(settings: Settings, model: "Model", path: str = "") -> None:
    from streamer.model.languages import check_languages

    check_languages(settings.speech.languages, model, _option("language", path))
    if not model.is_multilingual and settings.speech.task == "translate":
        name = f"the model {model.name}"
        raise UsageError(f"{_option('task', path)}: {name} cannot translate; take a multilingual one such as base")


def _option(name: str, path: str) -> str:
    """What a person wrote: the option, or the setting of one source."""
    return f"{path}.settings.speech.{name}" if path else f"--{name}"


class DownloadBar:
    """A progress bar on stderr that appears with the first progress of a download."""

    def __enter__(self) -> Callable[["Progress"], None]:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        return self._show

    def __exit__(self, *error: object) -> None:
        if self._tasks:
            self._bar.stop()

    def _show(self, progress: "Progress") -> None:
        if not self._tasks:
            self._bar.start()
        if progress.name not in self._tasks:
            self._tasks[progress.name] = self._bar.add_task(progress.name, total=progress.total_bytes)
        self._bar.update(self._tasks[progress.name], completed=progress.received_bytes, total=progress.total_bytes)
