"""`streamer bench …`: what it costs, how fast and how good it is. Each writes JSON, Markdown and a plot into --out."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.errors import UsageError

if TYPE_CHECKING:
    from streamer.measure.report import Report
    from streamer.model.whisper import Model
    from streamer.settings.config import Settings

OUT = Path("build/bench")
COMPUTE = ("auto", "cpu", "cuda")
MODEL_OPTIONS = ("model", "head", "language", "compute", "dtype")
DTYPE = ("auto", "float32", "bfloat16", "float16", "int8")


def add(subcommands: Any) -> None:
    """Add `bench` and its own subcommands to argparse's subparsers."""
    about = "measure cost, latency, throughput and quality on this machine"
    bench = subcommands.add_parser("bench", help=about, description=about, allow_abbrev=False)
    benches = bench.add_subparsers(dest="bench", required=True, metavar="BENCH", parser_class=type(bench))
    hop = _add(benches, "hop", hop_bench, "cost of one hop beside openai-whisper and faster-whisper")
    models = "names or paths, as the live program loads them, hearing people (tiny.en,base)"
    hop.add_argument("--models", metavar="A,B", type=_names, default=("tiny.en", "base"), help=models)
    hop.add_argument("--peers", metavar="A,B", type=_names, help="which (openai-whisper,faster-whisper)")
    _computing(hop)
    run = _add(benches, "throughput", throughput_bench, "how many live streams this machine carries")
    run.add_argument("--model", metavar="NAME|PATH", default="tiny.en", help="as the live program loads it (tiny.en)")
    run.add_argument("--seconds", metavar="S", type=_positive, default=20.0, help="of audio in each trial (20)")
    run.add_argument(
        "--streams", dest="most", metavar="N", type=_count, default=128, help="try no more than these (128)"
    )
    _computing(run)
    about = "encoder and decoder beside what the device can do: its multiplications, its memory; random weights"
    run = _add(benches, "ceilings", ceilings_bench, about)
    run.add_argument("--sizes", metavar="A,B", type=_names, default=("tiny", "base", "small"), help="official sizes")
    run.add_argument("--rounds", metavar="N", type=_count, default=5, help="of all measurements in turn (5)")
    _computing(run)
    _add_speech(benches)
    _add_cluster(benches)
    soak = _add(benches, "soak", soak_bench, "hours of audio at once: are cost, memory and word times flat?")
    _model_options(soak)
    soak.add_argument("--hours", metavar="H", type=_positive, default=10.0, help="of audio (10)")
    heard = soak.add_mutually_exclusive_group()
    heard.add_argument("--audio", metavar="FILE", help="looped; without: the bundled demo")
    heard.add_argument("--data", metavar="MANIFEST", type=Path, help="its recordings with speech, looped")
    soak.add_argument("--sets", metavar="A,B", type=_names, help="of the manifest (all)")
    soak.add_argument("--loop", metavar="S", type=_positive, default=300.0, help="of the manifest's speech (300)")
    about = "random faults on the running program while people speak: does it keep what it promises?"
    chaos = _add(benches, "chaos", chaos_bench, about)
    _model_options(chaos)
    chaos.add_argument("--seed", metavar="N", type=int, default=0, help="which faults, in which order, when (0)")
    chaos.add_argument("--minutes", metavar="M", type=_positive, default=10.0, help="of rounds with faults (10)")
    chaos.add_argument("--kills", metavar="N", type=int, default=10, help="of kill -9 behind them (10)")
    chaos.add_argument("--data", metavar="MANIFEST|FOLDER", type=Path, help="its speech; without: the bundled demo")
    busy = _add(benches, "busy", busy_bench, "the whole program on a minute of speech, alone and beside busy processes")
    busy.add_argument("--models", metavar="A,B", type=_names, default=("nano",), help="names or paths (nano)")
    busy.add_argument("--audio", metavar="FILE", help="without: the bundled demo of two readers")
    busy.add_argument("--rounds", metavar="N", type=_count, default=2, help="the best counts (2)")
    about = "recordings: alerts that they ought to raise, how soon, false ones by the hour, and what sounds score"
    sounds = _add(benches, "sounds", sounds_bench, about, also="alerts")
    _model_options(sounds)
    _data_options(sounds)
    sounds.add_argument("--peer", metavar="FILE", type=Path, help="YAMNet, .tflite with NAME_class_map.csv beside it")
    sounds.add_argument("--mixed", action="store_true", help="also under speech and under music, at 20, 10 and 0 dB")
    under = "for --mixed: recordings of speech, and sets of music (…music); repeatable"
    sounds.add_argument("--under", metavar="MANIFEST", type=Path, action="append", default=[], help=under)


def _add_speech(benches: Any) -> None:
    about = "recordings: word errors, latency, invented words and cost, beside openai-whisper offline"
    speech = _add(benches, "speech", speech_bench, about)
    _model_options(speech)
    _data_options(speech)
    times = "whose offline word timestamps say where words end: the best at hand (the same model)"
    speech.add_argument("--times", metavar="NAME|PATH", help=times)
    variant = "settings as JSON, reported as NAME; repeatable. Without: those in force"
    speech.add_argument("--variant", metavar="NAME=JSON", action="append", default=[], help=variant)
    speech.add_argument("--guards", action="store_true", help="variants: no guards, each alone, all but each")
    speech.add_argument("--peers", action="store_true", help="a LocalAgreement loop over faster-whisper too")
    speech.add_argument("--whole", action="store_true", help="as `streamer transcribe` reads whole files, too")
    speech.add_argument("--plain", action="store_true", help="compare lower-case words; for spoken digits")
    speech.add_argument("--paced", metavar="S", type=_positive, default=0.0, help="of each, also played live (none)")


def _add_cluster(benches: Any) -> None:
    run = _add(
        benches, "cluster", cluster_bench, "streams on engines of a cluster of this machine; engines may be killed"
    )
    run.add_argument("--model", metavar="NAME|PATH", default="tiny.en", help="(tiny.en)")
    run.add_argument("--streams", metavar="N", type=_count, default=4, help="at once, in real time (4)")
    run.add_argument("--replicas", metavar="R", type=_count, default=2, help="engines (2)")
    run.add_argument("--seconds", metavar="S", type=_positive, default=30.0, help="of each stream (30)")
    run.add_argument("--kills", metavar="K", type=int, default=0, help="of engines, at random moments (0)")
    run.add_argument("--cpus", metavar="C", type=_count, default=1, help="of each engine (1)")
    about = "many streams on a cluster, simulated with step times that `bench cluster` measured"
    run = _add(benches, "simulate", simulate_bench, about)
    run.add_argument("--steps", metavar="FILE", type=Path, required=True, help="the JSON of `bench cluster`")
    streams = "how many (10,100,1000,10000,100000)"
    run.add_argument("--streams", metavar="N,N", type=_counts, default=(10, 100, 1000, 10_000, 100_000), help=streams)
    run.add_argument("--replicas", metavar="R", type=_count, help="engines; without: as many as 70 %% of them carry")
    run.add_argument("--ingresses", metavar="I", type=_count, help="without: as many as are needed")
    run.add_argument("--seconds", metavar="S", type=_positive, default=20.0, help="of time that is simulated (20)")


def _computing(run: argparse.ArgumentParser) -> None:
    run.add_argument("--threads", metavar="N", type=_count, default=1, help="of the processor (1)")
    run.add_argument("--compute", choices=COMPUTE, default="auto", help="where (auto)")
    run.add_argument("--dtype", choices=DTYPE, default="auto", help="precision")


def _add(
    benches: Any, name: str, command: Callable[[argparse.Namespace], int], about: str, also: str | None = None
) -> argparse.ArgumentParser:
    """A bench's parser with the options of all; `also`: another name of it."""
    parser: argparse.ArgumentParser = benches.add_parser(
        name, help=about, description=about, allow_abbrev=False, aliases=[also] if also else []
    )
    parser.add_argument("--json", metavar="FILE|-", help="the findings as one JSON object; - is stdout")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=OUT, help=f"JSON, Markdown and plot ({OUT})")
    page = "a Markdown page: put the report in the place of its section of the same title, or at the end"
    parser.add_argument("--page", metavar="FILE", type=Path, help=page)
    parser.set_defaults(command=command)
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    for option in MODEL_OPTIONS:
        parser.add_argument(f"--{option}", help="as in `streamer run`")
    parser.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML settings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")


def _data_options(parser: argparse.ArgumentParser) -> None:
    data = "a CSV with the columns path,set,language,text, or a folder of scenes, NAME.flac beside NAME.json"
    parser.add_argument("--data", metavar="MANIFEST|FOLDER", type=Path, required=True, help=data)
    parser.add_argument("--sets", metavar="A,B", type=_names, help="only these; sounds: all sounds/… (all)")
    parser.add_argument("--limit", metavar="N", type=_count, help="recordings of each set (all)")


def hop_bench(options: argparse.Namespace) -> int:
    """`streamer bench hop`."""
    _settle_threads()
    from streamer.bench import hop
    from streamer.bench.peers import PEERS

    peers = PEERS if options.peers is None else options.peers
    _check_among("--peers", peers, PEERS)
    plan = hop.Plan(options.models, options.threads, peers, options.compute, options.dtype)
    return _publish(options, hop.report(hop.measure(plan, _say)))


def throughput_bench(options: argparse.Namespace) -> int:
    """`streamer bench throughput`."""
    _settle_threads()
    from streamer.bench import throughput

    plan = throughput.Plan(
        options.model, options.seconds, options.threads, options.most, options.compute, options.dtype
    )
    return _publish(options, throughput.report(throughput.measure(plan, _say)))


def ceilings_bench(options: argparse.Namespace) -> int:
    """`streamer bench ceilings`."""
    _settle_threads()
    from streamer.bench import ceilings

    _check_among("--sizes", options.sizes, ceilings.SIZES)
    plan = ceilings.Plan(options.sizes, options.rounds, options.threads, options.compute, options.dtype)
    return _publish(options, ceilings.report(ceilings.measure(plan, _say)))


def cluster_bench(options: argparse.Namespace) -> int:
    """`streamer bench cluster`."""
    _settle_threads()
    from streamer.bench import cluster

    plan = cluster.Plan(
        options.model, options.streams, options.replicas, options.seconds, max(0, options.kills), options.cpus
    )
    return _publish(options, cluster.report(cluster.measure(plan, _say)))


def simulate_bench(options: argparse.Namespace) -> int:
    """`streamer bench simulate`."""
    from dataclasses import replace

    from streamer.bench import simulate

    costs, rows = simulate.read_costs(options.steps), []
    for streams in options.streams:
        fleet = simulate.fleet_for(costs, streams, seconds=options.seconds)
        fleet = replace(
            fleet, replicas=options.replicas or fleet.replicas, ingresses=options.ingresses or fleet.ingresses
        )
        rows.append(simulate.simulate(costs, fleet))
        _say(f"simulate: {streams} streams, median {rows[-1]['latency_p50_ms']} ms")
    return _publish(options, simulate.report(costs, rows, str(options.steps)))


def speech_bench(options: argparse.Namespace) -> int:
    """`streamer bench speech`."""
    _settle_threads()
    from streamer.bench import speech
    from streamer.measure import recordings

    data = recordings.chosen(recordings.read_recordings(options.data), options.sets, options.limit)
    settings = _settings(options)
    variants = {name: _variant(settings, name, given) for name, given in map(_named, options.variant)}
    if options.guards:
        variants |= speech.guard_variants(settings)
    plan = speech.Plan(
        variants=variants or {speech.STREAM: settings},
        source=settings.model.name,
        times=options.times,
        peers=options.peers,
        whole=_load(settings, live=False) if options.whole else None,
        paced_s=options.paced,
        plain=options.plain,
    )
    report = speech.report(speech.measure(_load(settings), data, plan, _say))
    return _publish(options, report, report.brief())


def soak_bench(options: argparse.Namespace) -> int:
    """`streamer bench soak`."""
    _settle_threads()
    from streamer.audio.files import demo_path, read_audio
    from streamer.bench import soak
    from streamer.measure import recordings

    if options.data:
        data = recordings.chosen(recordings.read_recordings(options.data), options.sets)
        audio = soak.speech_loop(data, options.loop)
    else:
        audio = read_audio(options.audio or demo_path())
    settings = _settings(options)
    return _publish(options, soak.report(soak.measure(_load(settings), settings, audio, options.hours, _say)))


def busy_bench(options: argparse.Namespace) -> int:
    """`streamer bench busy`."""
    from streamer.audio.files import demo_path, read_audio
    from streamer.bench import busy

    audio = read_audio(options.audio or demo_path("voices"))
    return _publish(options, busy.report(busy.measure(options.models, audio, options.rounds, _say)))


def sounds_bench(options: argparse.Namespace) -> int:
    """`streamer bench sounds`, which was `bench alerts`."""
    if options.data.is_dir():
        raise UsageError(
            f"--data {options.data}: must be a manifest of recordings; composed scenes tell little of sounds"
        )
    if options.mixed != bool(options.under):
        raise UsageError("--mixed and --under MANIFEST: each needs the other")
    _settle_threads()
    from streamer.bench import sound_scores, sounds
    from streamer.measure.recordings import chosen, read_recordings

    data = chosen(read_recordings(options.data, untold=True), options.sets, options.limit)
    beds = [each for path in options.under for each in read_recordings(path, untold=True, option="--under")]
    settings = _settings(options)
    found = sounds.measure(_load(settings), settings, data, options.peer, beds, _say)
    return _publish(options, sound_scores.report(found))


def chaos_bench(options: argparse.Namespace) -> int:
    """`streamer bench chaos`. 1 where a promise was broken, a word lost or a stranger let in."""
    _settle_threads()
    from streamer.audio.files import demo_path, read_audio
    from streamer.bench.chaos import rounds
    from streamer.bench.soak import speech_loop
    from streamer.measure.recordings import read_recordings

    settings = _settings(options)
    model = _load(settings)
    data = options.data
    spoken = read_audio(demo_path(model.name)) if data is None else speech_loop(read_recordings(data), 300.0)
    given = [f"--{name}" for name in MODEL_OPTIONS if getattr(options, name) is not None]
    values = [str(getattr(options, name)) for name in MODEL_OPTIONS if getattr(options, name) is not None]
    more = [part for pair in zip(given, values, strict=True) for part in pair]
    more += [part for name in ("config", "set") for one in getattr(options, name) for part in (f"--{name}", str(one))]
    found = rounds.measure(
        rounds.Plan(options.seed, options.minutes, options.kills, more), model, settings, spoken, _say
    )
    status = _publish(options, rounds.report(found))
    return 1 if found["broken"] or found["words_lost"] or found["strangers_let_in"] else status


def _publish(options: argparse.Namespace, report: "Report", shown: str | None = None) -> int:
    """Write the report; print `shown`, or all of it."""
    from streamer.measure.report import as_json, publish, write_into

    paths = publish(report, options.out)
    if options.page:
        write_into(report, options.page)
        paths.append(options.page)
    if options.json == "-":
        sys.stdout.write(as_json(report.result))
    else:
        if options.json:
            try:
                Path(options.json).write_text(as_json(report.result), encoding="utf-8")
            except OSError as error:
                raise UsageError(f"--json {options.json}: cannot be written: {error.strerror}") from None
        sys.stdout.write(shown or report.markdown())
    _say("written: " + ", ".join(map(str, paths)))
    return 0


def _settle_threads() -> None:
    """Before torch starts, as `streamer run` does: waiting threads that spin slow everything on a busy machine."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _check_among(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Before anything is measured."""
    for name in names:
        if name not in known:
            raise UsageError(f"{option}: must be among {', '.join(known)}, is {name!r}")


def _settings(options: argparse.Namespace) -> "Settings":
    from streamer.commands.run import SETTINGS
    from streamer.settings.config import resolve

    given = {SETTINGS[name]: value for name in MODEL_OPTIONS if (value := getattr(options, name)) is not None}
    return resolve([Path(path) for path in options.config], options.set, given)


def _load(settings: "Settings", *, live: bool = True) -> "Model":
    from streamer.commands.run import load

    return load(settings, live=live)


def _named(text: str) -> tuple[str, dict[str, Any]]:
    """NAME={JSON} of --variant."""
    name, sign, given = text.partition("=")
    try:
        data = json.loads(given)
    except ValueError:
        data = None
    if not sign or not name.strip() or not isinstance(data, dict):
        raise UsageError(
            f'--variant {text}: must be NAME={{settings as JSON}}, such as calm={{"guards": {{"doubt": false}}}}'
        )
    return name.strip(), data


def _variant(settings: "Settings", name: str, given: dict[str, Any]) -> "Settings":
    """The settings with some changed, section by section."""
    from streamer.settings.config import validate

    data = settings.model_dump()
    for section, values in given.items():
        merged = isinstance(values, dict) and isinstance(data.get(section), dict)
        data[section] = {**data[section], **values} if merged else values
    return validate(data, where=f"--variant {name}: ")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("names separated by commas are needed")
    return names


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, is {text!r}")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(one) for one in _names(text))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, is {text!r}")
    return value
