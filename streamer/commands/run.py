"""`streamer run`, and what other commands share with it: options that are settings, and the model with its progress."""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from streamer.errors import UsageError
from streamer.model.download import LoadStep, Tell
from streamer.model.names import check_name
from streamer.settings.config import Compute, Dtype, ModelSettings, Settings, SourcePlan, Task, resolve
from streamer.settings.own_sounds import with_own_rules
from streamer.settings.server import with_token

if TYPE_CHECKING:
    from streamer.cluster.connect import Cluster
    from streamer.model.choice import Wish
    from streamer.model.download import ProgressCallback
    from streamer.model.whisper import Model
    from streamer.runtime.teaching import Lessons

log = logging.getLogger(__name__)

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
    "monitor": "monitor.output",
    "headphones": "monitor.headphones",
    "quiet": "output.quiet",
    "host": "server.host",
    "port": "server.port",
    "token": "server.token",
    "token_file": "server.token_file",
    "tls": "server.tls",
    "tls_cert": "server.tls_cert",
    "tls_key": "server.tls_key",
    "cluster": "cluster.address",
}


def settings_options(parser: Any) -> None:
    """`--config` and `--set`, of every command that has settings."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="YAML settings (~/.config/streamer/config.yaml, if there is one)",
    )
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")


def run_options(run: argparse.ArgumentParser) -> None:
    """The options of `run`, as DESIGN's table has them."""
    sound = run.add_argument_group("sound", "one source; several at once stand under `sources:` in --config FILE")
    sound.add_argument(
        "--device", metavar="N|NAME", type=_index_or_name, help="capture device by index or by a part of its name"
    )
    sound.add_argument("--list-devices", action="store_true", help="list the capture devices and leave")
    sound.add_argument(
        "--input",
        metavar="FILE|-|demo|ingest",
        help="a file, raw PCM or a file on stdin, the demo, or phones and programs that send",
    )
    sound.add_argument("--track", metavar="N", type=int, help="which audio track of the file, from 1; else the default")
    sound.add_argument("--speed", type=int, choices=(1, 0), help="files in real time (1) or as fast as it goes (0)")
    model = run.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME|PATH",
        help="auto (what this machine carries), nano, an official name, a .pt, or a CTranslate2 or transformers folder",
    )
    model.add_argument("--head", metavar="PATH|auto|none", help="tagging head; none: captions only")
    model.add_argument("--language", metavar="CODE[,CODE]", help="spoken language (en), or those that may be (en,de)")
    model.add_argument("--task", choices=get_args(Task), help="translate: into English")
    model.add_argument("--prompt", metavar="TEXT", help="names and jargon that may be said")
    model.add_argument("--compute", choices=get_args(Compute), help="where to compute")
    model.add_argument("--dtype", choices=get_args(Dtype), help="in which precision")
    cluster = run.add_argument_group("cluster", "engines on Ray Serve; everything else stays in this process")
    cluster_options(cluster)
    settings = run.add_argument_group("settings")
    settings_options(settings)
    settings.add_argument("--print-config", action="store_true", help="print the settings in force and leave")
    out = run.add_argument_group("output")
    out.add_argument("--jsonl", metavar="PATH|-", help="write events; - is stdout")
    out.add_argument("--srt", metavar="PATH", help="write captions as SubRip; several sources: PATH.NAME.srt")
    out.add_argument("--vtt", metavar="PATH", help="write captions as WebVTT; several sources: PATH.NAME.vtt")
    out.add_argument("--stay", action="store_true", default=None, help="keep the server up after the end of a file")
    out.add_argument("--quiet", action="store_true", default=None, help="no terminal view")
    aid = run.add_argument_group("hearing aid", "the microphone in your headphones, at once; not a medical device")
    aid.add_argument("--monitor", metavar="N|NAME", type=_index_or_name, help="output device of the headphones")
    aid.add_argument(
        "--headphones", action="store_true", default=None, help="yes, that output is headphones (said once)"
    )
    server = run.add_argument_group("server")
    server.add_argument("--host", help="address to listen on (127.0.0.1)")
    server.add_argument("--port", type=int, help="port to listen on (8765)")
    server.add_argument(
        "--token", help="what clients must present (or STREAMER_TOKEN); demanded when others can reach the address"
    )
    server.add_argument("--token-file", metavar="PATH", help="a file with the token: lists of processes show --token")
    server.add_argument("--tls", choices=("self-signed",), help="https with a certificate that is made here and kept")
    server.add_argument("--tls-cert", metavar="PATH", help="certificate (PEM)")
    server.add_argument("--tls-key", metavar="PATH", help="its key (PEM)")
    server.add_argument("--no-server", action="store_true", help="no websocket and page server")


def cluster_options(parser: Any) -> None:
    """`--cluster` and `--replicas`, of every command that can have a cluster do its work."""
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help="engines on Ray: auto or HOST:PORT; without ADDRESS on this machine, for this program alone",
    )
    parser.add_argument(
        "--replicas",
        metavar="N|N..MOST",
        type=_range,
        help="engines to start, if none are there (1); as many as needed",
    )


def serve(options: argparse.Namespace) -> int:
    """`streamer serve`: `run` without a microphone, for those who send their sound to `/ingest`."""
    options.stay = True
    return run(options, serves=True)


def run(options: argparse.Namespace, *, serves: bool = False) -> int:
    """`streamer run`. `serves`: as `serve`, senders are heard where no source is named."""
    began_s = time.monotonic()
    if options.list_devices:
        return devices(options)
    given = given_settings(options) | ({"server.enabled": False} if options.no_server else {})
    settings = resolve(options.config, options.set, given)
    if options.print_config:
        sys.stdout.write(settings.to_yaml())
        return 0
    if options.headphones and not settings.monitor.enabled:
        raise UsageError("--headphones: says what --monitor OUTPUT is; give both")
    if options.replicas is not None and settings.cluster.address is None:
        raise UsageError("--replicas: engines of a cluster; give --cluster, too")
    if settings.cluster.address is None:  # else it may be a path of the replicas' machines
        check_name(settings.model.name)
    from streamer.runtime.inputs import named_senders, open_inputs, open_monitor
    from streamer.runtime.supervisor import Program

    settings = settings.model_copy(update={"server": with_token(settings.server)})
    settings = with_own_sounds(with_known_language(_serving(settings) if serves else settings))
    plans = [
        replace(plan, settings=with_own_sounds(with_known_language(plan.settings, plan.path)))
        for plan in settings.plans()
    ]
    audio = settings.audio
    cluster = cluster_of(settings, plans)
    if cluster and settings.own_sounds.from_pages:
        log.warning("own_sounds.from_pages: pages teach no sounds in a cluster; `streamer sounds learn` does")
    monitor = open_monitor(settings)
    inputs = open_inputs(plans, server=settings.server.enabled, monitor=monitor)
    if audio.input == "demo" and audio.speed == 1 and "stay" not in settings.output.model_fields_set:
        settings = settings.model_copy(update={"output": settings.output.model_copy(update={"stay": True})})
    program = Program(
        settings,
        inputs,
        lambda tell: cluster.open(tell) if cluster else load(settings, plans, tell),
        senders=named_senders(plans),
        port_given=options.port is not None,
        began_s=began_s,
        monitor=monitor,
        load_on_cpu=lambda name: load(_on_cpu(settings, name), plans, lambda step: log.info("%s", step.what)),
        elsewhere=(lambda model: cluster.engine(model, settings.model.context)) if cluster else None,
        book=cluster.book if cluster and cluster.shared else None,
        recordings=(lambda model: cluster.recordings(model, settings.model.context)) if cluster else None,
        metrics=cluster.metrics if cluster else None,
        lessons=_lessons() if settings.own_sounds.from_pages and not cluster else None,
    )
    try:
        return program.run()
    finally:
        if cluster:
            cluster.close()


def _serving(settings: Settings) -> Settings:
    """The settings of `serve`: where they name no source, senders bring the sound. Raises UsageError."""
    audio = settings.audio
    if audio.input == "demo":
        raise UsageError("--input demo: `streamer serve` hears who sends; `streamer run --input demo` plays the demo")
    if settings.sources or audio.input is not None or audio.device is not None:
        return settings
    if not settings.server.enabled:
        raise UsageError("--no-server: without the server nobody can send sound to `streamer serve`")
    return settings.model_copy(update={"audio": audio.model_copy(update={"input": "ingest"})})


def cluster_of(settings: Settings, plans: Sequence[SourcePlan] = ()) -> "Cluster | None":
    """The cluster that the settings name, not yet opened; None: this process computes. Raises UsageError."""
    if settings.cluster.address is None:
        return None
    from streamer.cluster.connect import Cluster
    from streamer.cluster.wish import ModelWish

    wish = _wish([settings, *(plan.settings for plan in plans)])
    return Cluster(settings.cluster, ModelWish.of(settings, wish.languages, translate=wish.translate))


def _lessons() -> "Lessons":
    """What learns sounds that are taught from the pages: in a room below that of the program."""
    from streamer.runtime.teaching import Lessons
    from streamer.training.moments import moment_of
    from streamer.training.own_sounds import encoder_of, learn

    return Lessons(moment_of, encoder_of, learn)


def with_own_sounds(settings: Settings) -> Settings:
    """The settings with a rule for each learned sound that no rule is about."""
    if not settings.own_sounds.enabled or not settings.own_sounds.place().is_dir():
        return settings
    from streamer.model.own_sounds import OwnSoundFiles

    known = OwnSoundFiles(settings.own_sounds.place()).read()
    rules = with_own_rules(settings.alerts, [(sound.name, sound.severity) for sound in known])
    return settings.model_copy(update={"alerts": rules})


def _on_cpu(settings: Settings, name: str) -> Settings:
    """The settings for the same model on the CPU; `name`: what `auto` had chosen."""
    given = settings.model
    chosen = name if given.name == "auto" else given.name
    model = given.model_copy(update={"name": chosen, "compute": "cpu", "dtype": "auto"})
    return settings.model_copy(update={"model": model})


def devices(options: argparse.Namespace) -> int:
    """`streamer devices` and `--list-devices`: index, name, host API, channels, native rate; * marks the default."""
    from streamer.audio.portaudio import list_devices

    rows = list_devices()
    for device in rows:
        mark = "*" if device.default else " "
        sys.stdout.write(
            f"{mark}{device.index:3d}  {device.name}  [{device.host_api}, {device.channels} ch, {device.rate} Hz]\n"
        )
    if not rows:
        sys.stderr.write("no capture device was found; `streamer doctor` says what may be missing\n")
    return 0


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Path of the setting -> value, of the options that were given."""
    given = {path: value for name, path in SETTINGS.items() if (value := getattr(options, name, None)) is not None}
    if (replicas := getattr(options, "replicas", None)) is not None:
        given |= {"cluster.replicas": replicas[0]} | ({"cluster.max_replicas": replicas[1]} if replicas[1] else {})
    tokens = ("server.token", "server.token_file")
    if any(path in given for path in tokens):  # one of them takes the place of the other in a file
        given = dict.fromkeys(tokens) | given
    return given


def _index_or_name(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _range(text: str) -> tuple[int, int | None]:
    """`2`, or `2..8`: the least and the most, None: no more than the least."""
    least, dots, most = text.partition("..")
    try:
        return int(least), int(most) if dots else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid value: {text!r}; 2, or 2..8") from None


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
    view = LoadingView(sys.stderr, brief=True)  # shows nothing where another view is told
    try:
        model = load_model(
            given.name,
            head=head,
            device=given.compute,
            dtype=given.dtype if live else _unrounded(given),
            short_windows=live and given.context != "padded",
            wish=wish,
            tell=tell or view.show,
            note=notes.append,
        )
    finally:
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


def _wish(given: Sequence[Settings]) -> "Wish":
    from streamer.model.choice import Wish

    spoken = [settings.speech for settings in given]
    languages = frozenset(code for speech in spoken for code in speech.languages or ("",))
    return Wish(languages, translate=any(speech.task == "translate" for speech in spoken))


def with_known_language(settings: Settings, path: str = "") -> Settings:
    """The settings with language codes where names were given; UsageError for no language of Whisper's.

    `path`: of the source whose settings they are, "" for those of all.
    """
    from streamer.model.whisper import language_codes

    return settings.with_languages(language_codes(settings.speech.languages, _option("language", path)))


def _check_language(settings: Settings, model: "Model", path: str = "") -> None:
    from streamer.model.whisper import check_languages

    check_languages(settings.speech.languages, model, _option("language", path))
    if not model.is_multilingual and settings.speech.task == "translate":
        name = f"the model {model.name}"
        raise UsageError(f"{_option('task', path)}: {name} cannot translate; take a multilingual one such as base")


def _option(name: str, path: str) -> str:
    """What a person wrote: the option, or the setting of one source."""
    return f"{path}.settings.speech.{name}" if path else f"--{name}"


@contextmanager
def downloading() -> Iterator["ProgressCallback"]:
    """Show on stderr how far downloads are."""
    from streamer.output.terminal import LoadingView

    view = LoadingView(sys.stderr)
    try:
        yield lambda one: view.show(LoadStep(f"fetching {one.name}", True, one.received_bytes, one.total_bytes))
    finally:
        view.close()
