"""`streamer train` and `streamer eval`: arguments for what `streamer.training` does; and `streamer verify`."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.errors import UsageError

if TYPE_CHECKING:
    from streamer.measure.report import Report
    from streamer.training.manifests import ManifestSettings

OUT = Path("build/eval")


def add(subcommands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    _add_train(_group(subcommands, "train", "train a tagging head, or the bundled model"))
    _add_eval(_group(subcommands, "eval", "judge tags on recordings with known content"))
    proof = _command(subcommands, "verify", verify, "prove a model on this machine against openai-whisper")
    proof.add_argument("--model", required=True, metavar="NAME|PATH")
    proof.add_argument("--audio", nargs="+", default=[], type=Path, metavar="FILE")
    proof.add_argument("--refs", nargs="+", default=[], type=Path, metavar="FILE", help="what is said in each, as text")
    proof.add_argument("--head", default="auto", metavar="PATH|auto|none")
    _computing(proof)


def _add_train(kinds: Any) -> None:
    one = _command(kinds, "head", train_head, "train a tagging head on a frozen backbone")
    many = _command(kinds, "heads", train_heads, "compare the kinds of heads under one recipe")
    nano = _command(kinds, "nano", train_nano, "make the bundled model")
    for parser, config in ((one, "train_head"), (many, "train_head"), (nano, "train_nano")):
        parser.add_argument("--config", type=Path, default=Path(f"configs/{config}.yaml"), metavar="FILE")
    for parser in (one, many):
        parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one setting")
    sirens = _command(kinds, "sirens", train_network, "make the bundled network that hears sirens")
    t4 = _command(kinds, "t4", train_network, "make the bundled network that tells a CO alarm's beeps")
    for parser, name, scenes, steps in ((sirens, "sirens", 12_800, 20_000), (t4, "t4", 2_400, 12_000)):
        parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="has manifest.csv and its files")
        parser.add_argument("--out", type=Path, default=Path(f"build/{name}"), metavar="FOLDER")
        parser.add_argument("--scenes", type=_positive, default=scenes, help="to compose, of 32 s each")
        parser.add_argument("--steps", type=_positive, default=steps)
        parser.add_argument("--processes", type=_positive, default=2)
    context = _command(kinds, "context", train_context, "teach an official model to hear short windows")
    context.add_argument("--model", required=True, metavar="NAME|PATH")
    context.add_argument("--data", action="append", required=True, type=Path, metavar="MANIFEST", help="path,text,…")
    context.add_argument("--out", type=Path, default=Path("build/context"), metavar="FOLDER", help="goes on from there")
    context.add_argument("--steps", type=_positive, default=4000)
    context.add_argument("--rank", type=_positive, default=16)
    context.add_argument("--margin", type=_positive, default=128, metavar="FRAMES", help="of 10 ms behind a window")
    context.add_argument("--threads", type=_positive, default=1)
    own = _command(kinds, "own-sounds", train_own_sounds, "make what learning of own sounds starts from, for a model")
    own.add_argument("--model", required=True, metavar="NAME|PATH")
    own.add_argument("--data", required=True, type=Path, metavar="CSV", help="path,sound (yes: one kind of sound)")
    own.add_argument("--out", type=Path, default=Path("streamer/data/own_sounds"), metavar="FOLDER")
    own.add_argument("--windows", type=_positive, default=300, help="of 10 s of other sounds, at most")
    many.add_argument("--out", type=Path, default=Path("build/heads"), metavar="FOLDER")
    many.add_argument("--seeds", type=int, default=3)
    many.add_argument("--beside", nargs="+", default=[], type=Path, metavar="PTH", help="existing heads to judge too")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _add_eval(kinds: Any) -> None:
    tags = _command(kinds, "tags", eval_tags, "mAP, mAUC, d', accuracy, and the curve over spans")
    probe = _command(kinds, "probe", eval_probe, "how well each encoder layer separates sounds")
    robust = _command(kinds, "robustness", eval_robustness, "word errors against noise, and how well it is tagged")
    for parser in (tags, probe, robust):
        parser.add_argument("--model", default="nano", metavar="NAME|PATH")
        parser.add_argument("--manifest", action="append", default=[], metavar="FILE[:AUDIO]", help="CSV, JSONL, …")
        _computing(parser)
    for parser in (tags, robust):
        parser.add_argument("--split", default="test")
    tags.add_argument("--head", default="auto", metavar="PATH|auto")
    probe.add_argument("--folds", default="split", choices=("split", "manifest"))


def _group(subcommands: Any, name: str, about: str) -> Any:
    parser = subcommands.add_parser(name, help=about, description=about, allow_abbrev=False)
    return parser.add_subparsers(dest="kind", required=True, metavar="WHAT", parser_class=type(parser))


def _command(subcommands: Any, name: str, command: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subcommands.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(command=command)
    return parser


def _computing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER")
    parser.add_argument("--compute", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16", "int8"))


def train_head(options: argparse.Namespace) -> int:
    """`streamer train head`: goes on where a killed run stopped."""
    from streamer.training import head_training

    head_training.main(options.config, options.set)
    return 0


def train_heads(options: argparse.Namespace) -> int:
    """`streamer train heads`."""
    from streamer.training import head_training

    report = head_training.compare_heads(
        options.config, options.out, options.set, seeds=options.seeds, beside=options.beside
    )
    return _say(report, options.out)


def train_nano(options: argparse.Namespace) -> int:
    """`streamer train nano`: the path of the folder is the last line."""
    return _wrote(_recipe("nano").main(options.config, _to_stderr))


def train_network(options: argparse.Namespace) -> int:
    """`streamer train sirens` and `t4`: the path of the network is the last line."""
    make = _recipe(options.kind)
    recipe = make.Recipe(options.data, options.out, options.scenes, options.steps, processes=options.processes)
    return _wrote(make.main(recipe, _to_stderr))


def train_context(options: argparse.Namespace) -> int:
    """`streamer train context`: the path of the differences is the last line."""
    _for_training()
    from streamer.training.context import make

    recipe = make.Recipe(
        options.model, options.data, options.out, options.steps, options.rank, options.margin, threads=options.threads
    )
    return _wrote(make.main(recipe, _to_stderr))


def train_own_sounds(options: argparse.Namespace) -> int:
    """`streamer train own-sounds`: the path of the file is the last line."""
    _for_training()
    from streamer.model.choice import load_model
    from streamer.training import own_background

    model = load_model(options.model, head=None)
    background = own_background.make(model, own_background.read_list(options.data), options.windows, _to_stderr)
    path: Path = options.out / f"{model.name}.npz"
    background.write(path)
    return _wrote(path)


def _recipe(name: str) -> Any:
    """The module `make` of a recipe. Raises UsageError where the package is installed without them."""
    if find_spec("streamer.recipes") is None:
        raise UsageError(f"train {name}: runs from a checkout: the recipes are left out of the installed package")
    _for_training(*(["onnx"] if name == "sirens" else []))
    return import_module(f"streamer.recipes.{name}.make")


def _for_training(*more: str) -> None:
    from streamer.measure.report import evaluation_library

    for library in ("sklearn", *more):  # scipy comes with the first
        evaluation_library(library)


def _wrote(path: Path) -> int:
    sys.stdout.write(f"{path}\n")
    return 0


def eval_tags(options: argparse.Namespace) -> int:
    """`streamer eval tags`."""
    from streamer.training import evaluation

    return _say(evaluation.main(**_evaluated(options), head=options.head, split=options.split), options.out)


def eval_probe(options: argparse.Namespace) -> int:
    """`streamer eval probe`."""
    from streamer.training import probe

    return _say(probe.main(**_evaluated(options), folds=options.folds), options.out)


def eval_robustness(options: argparse.Namespace) -> int:
    """`streamer eval robustness`."""
    from streamer.training import robustness

    return _say(robustness.main(**_evaluated(options), split=options.split), options.out)


def _evaluated(options: argparse.Namespace) -> dict[str, Any]:
    """What all evaluations take."""
    return {
        "model": options.model,
        "manifests": manifests(options.manifest),
        "out": options.out,
        "device": options.compute,
        "dtype": options.dtype,
    }


def verify(options: argparse.Namespace) -> int:
    """`streamer verify`."""
    from streamer.bench import verify as proof
    from streamer.commands.run import downloading

    with downloading() as progress:
        report = proof.main(
            options.model,
            options.out,
            audio=options.audio,
            refs=options.refs,
            head=options.head,
            device=options.compute,
            dtype=options.dtype,
            download_progress=progress,
            say=_to_stderr,
        )
    sys.stdout.write(f"{report.markdown()}\n{options.out / 'verify.md'}\n")
    return 0


def manifests(texts: Sequence[str]) -> list["ManifestSettings"]:
    """The manifests of `--manifest FILE` or `--manifest FILE:FOLDER` (where its audio lies)."""
    from streamer.training.manifests import ManifestSettings

    if not texts:
        raise UsageError("--manifest: is needed: a CSV or JSONL of recordings, AudioSet's segments or esc50.csv")
    found = []
    for text in texts:
        path, _, audio = text.partition(":")
        found.append(ManifestSettings(path=Path(path), audio=Path(audio) if audio else None))
    return found


def _say(report: "Report", folder: Path) -> int:
    sys.stdout.write(report.markdown() + f"\n{folder / (report.name + '.md')}\n")
    return 0


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
