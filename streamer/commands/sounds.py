"""`streamer sounds`: learn sounds of one's own from clips, list them, forget them."""

import argparse
import math
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.errors import UsageError
from streamer.settings.config import Settings, resolve
from streamer.settings.own_sounds import SEVERITY, checked_name, with_own_rules

if TYPE_CHECKING:
    from streamer.model.own_sounds import OwnSound, OwnSoundFiles

ABOUT = "your own bell, microwave or washing machine, learned from three to ten clips"


def add(subcommands: Any) -> None:
    """Add `sounds` and what stands below it to argparse's subparsers."""
    sounds = subcommands.add_parser(
        "sounds",
        help=ABOUT,
        description=ABOUT,
        epilog="Of the clips that you give, no audio is kept.",
        allow_abbrev=False,
    )
    below = sounds.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=type(sounds))
    taught = _add(below, "learn", learn, "learn a sound, in place of what was learned under this name")
    taught.add_argument("name", metavar="NAME", help="what people read, for example 'my doorbell'")
    taught.add_argument(
        "clips", nargs="*", metavar="CLIP", type=Path, help="a recording of it; none: those kept from the pages"
    )
    taught.add_argument("--model", metavar="NAME|PATH", help="as in `streamer run`, with which it will be listened for")
    severity = taught.add_argument("--severity", choices=("info", "warning", "critical"))
    severity.help = f"of its alert ({SEVERITY}, or what it had)"
    _add(below, "list", show, "what was learned, from how many clips, and how often it errs")
    gone = _add(below, "forget", forget, "delete what was learned of a sound, and its kept clips")
    gone.add_argument("name", metavar="NAME")


def _add(below: Any, name: str, command: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = below.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.add_argument("--data-dir", metavar="DIR", help="where it is kept (own_sounds.folder)")
    parser.add_argument("--config", metavar="FILE", action="append", default=[], help="YAML settings")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override one setting")
    parser.set_defaults(command=command)
    return parser


def learn(options: argparse.Namespace) -> int:
    """`streamer sounds learn NAME [CLIP…]`: nothing is kept unless it is learned."""
    from streamer.alerts.own_clips import OwnClips
    from streamer.audio.files import read_audio
    from streamer.commands.run import load
    from streamer.model.own_sounds import CLIPS_NEEDED, CLIPS_TAKEN, bundled_background
    from streamer.training import own_sounds

    settings, files = _opened(options, **({"model.name": options.model} if options.model else {}))
    try:
        name = checked_name(options.name)
    except ValueError as error:
        raise UsageError(f"NAME: {error}") from None
    paths = options.clips or OwnClips(files.folder).paths(name)
    if not CLIPS_NEEDED <= len(paths) <= CLIPS_TAKEN:
        kept = f"or teach it from the viewer: {len(paths)} are kept from there"
        given = f"not {len(paths)}" if options.clips else kept
        raise UsageError(f"CLIP: give {CLIPS_NEEDED} to {CLIPS_TAKEN} recordings of {name!r}, {given}")
    clips = [(str(path), read_audio(str(path))) for path in paths]
    for (one, samples), (other, others) in combinations(clips, 2):
        if np.array_equal(samples, others):  # what is left out of the learning would be known all the same
            raise UsageError(f"CLIP: {one} and {other} are the same recording; record {name!r} each time anew")
    model = load(settings)
    encode = own_sounds.encoder_of(model)
    known = files.find(name)
    severity = options.severity or (known.severity if known else SEVERITY)
    sound = own_sounds.learn(name, severity, clips, encode, bundled_background(model), _say)
    files.write(sound)
    sys.stdout.write(described(sound) + "\n")
    _say(f"programs that are started with --model {sound.model} from now on listen for it")
    return 0


def show(options: argparse.Namespace) -> int:
    """`streamer sounds list`."""
    from streamer.alerts.history import AlertHistory, history_path
    from streamer.alerts.own_clips import OwnClips

    settings, files = _opened(options)
    raised = AlertHistory(history_path(settings.delivery.history)).read()
    sounds, kept = files.read(), OwnClips(files.folder).names()
    alerts = with_own_rules(settings.alerts, [(sound.name, sound.severity) for sound in sounds])
    rules = {rule.own: rule.id for rule in alerts.rules if rule.own}
    for sound in sounds:
        mine = [entry for entry in raised if entry.first.rule == rules.get(sound.name)]
        false = sum(entry.verdict == "false" for entry in mine)
        clips = kept.pop(sound.name.casefold(), 0)
        here = f"; {clips} clips of it are kept" if clips else ""
        sys.stdout.write(f"{described(sound)}; raised {len(mine)} times here, {false} marked as false alarms{here}\n")
    for name, count in kept.items():
        sys.stdout.write(f"{name}: not learned yet; clips of it that are kept: {count}\n")
    if not sounds and not kept:
        _say(f"nothing was learned yet in {files.folder}; `streamer sounds learn NAME CLIP…` does")
    return 0


def forget(options: argparse.Namespace) -> int:
    """`streamer sounds forget NAME`: a program that runs listens for it until it is started again."""
    from streamer.alerts.own_clips import OwnClips

    _, files = _opened(options)
    clips = OwnClips(files.folder)
    if files.find(options.name) is None and clips.names().get(options.name.casefold()):
        sys.stdout.write(f"{options.name}: {clips.forget(options.name)} clips are deleted; it was not learned yet\n")
        return 0
    sound = files.forget(options.name)
    deleted = clips.forget(sound.name)
    gone = f" and {deleted} clips of it are deleted" if deleted else ""
    sys.stdout.write(f"{sound.name} is forgotten{gone}; a program that runs now listens for it until its next start\n")
    return 0


def described(sound: "OwnSound") -> str:
    """A line about a sound: an honest estimate is a bound, where few hours were heard."""
    most = upper_rate(sound.false_alarms, sound.false_hours)
    times = "once" if sound.false_alarms == 1 else f"{sound.false_alarms} times" if sound.false_alarms else "never"
    return (
        f"{sound.name} ({sound.severity}), learned from {sound.clips} clips with {sound.model}: recognises "
        f"{100 * sound.recall:.0f} % of a clip that was left out of the learning; {times} mistook something else "
        f"for it in {sound.false_hours:.1f} h of other sounds (so probably at most {most:.1f} an hour)"
    )


def upper_rate(count: int, hours: float) -> float:
    """The upper 95 % bound of a rate per hour (Poisson; Wilson and Hilferty 1931)."""
    more = count + 1
    return float(more * (1 - 1 / (9 * more) + 1.645 / (3 * math.sqrt(more))) ** 3 / hours)


def _opened(options: argparse.Namespace, **more: Any) -> tuple[Settings, "OwnSoundFiles"]:
    from streamer.model.own_sounds import OwnSoundFiles

    given = {**more, **({"own_sounds.folder": options.data_dir} if options.data_dir else {})}
    settings = resolve([Path(path) for path in options.config], options.set, given)
    return settings, OwnSoundFiles(settings.own_sounds.place())


def _say(line: str) -> None:
    sys.stderr.write(f"streamer: {line}\n")
