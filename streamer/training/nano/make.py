"""`streamer train nano`: from a manifest and synthesis to the shipped files."""

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from streamer.errors import ConfigError
from streamer.training.nano import loop, tagging
from streamer.training.nano.bank import Bank, build
from streamer.training.nano.clips import read_recordings
from streamer.training.nano.household import household
from streamer.training.nano.network import Nano
from streamer.training.nano.others import others
from streamer.training.nano.publish import write_backbone, write_head
from streamer.training.nano.ranks import launch
from streamer.training.nano.settings import Data, Settings, load
from streamer.training.nano.validation import shipped_form
from streamer.training.nano.vocabulary import Vocabulary, used_tokens
from streamer.training.nano.words import vocabulary


def main(config: Path, report: Callable[[str], None] = lambda line: None) -> Path:
    """Train `nano` as the YAML file says and return the folder with nano.pt, nano.json, nano_at.pth, nano_at.json.

    A killed run goes on from its last saved state. Raises ConfigError and InputError.
    """
    settings = load(config)
    report(f"making the bank from {settings.data.manifest}")
    bank = make_bank(settings.data, part="train")
    words, phones = used_tokens(), loop.phones_of(vocabulary())

    def work(rank: int) -> None:
        run = loop.start(settings, words, phones)
        report(f"process {rank}: training from step {run.step} to {loop.all_steps(settings.schedule)}")
        loop.train(run, bank, words, phones, settings, report, rank)

    launch(settings.schedule.processes, work)
    run = loop.start(settings, words, phones)
    write_backbone(run.average, words, settings.out)
    finish_head(run.average, bank, words, settings, report)
    return settings.out


def finish_head(model: Nano, bank: Bank, words: Vocabulary, settings: Settings, report: Callable[[str], None]) -> None:
    """Train the tagging head on the shipped backbone's taps, calibrate it on the validation part, write both files."""
    seed, made = settings.head.seed, settings.head.made
    bank = replace(bank, sounds=bank.sounds + others(each=24, seed=seed) + household(each=made, seed=seed))
    part, shipped, processes = settings.head, shipped_form(model, words), settings.schedule.processes
    report("computing taps")
    taps = tagging.cache(shipped, bank, groups=part.groups, seed=part.seed, processes=processes)
    model.head = tagging.train_head(model.head, taps, steps=part.steps, seed=part.seed, report=report)
    apart = make_bank(settings.data, part="validation")
    apart = replace(apart, sounds=apart.sounds + others(each=6, seed=part.seed + 1))
    held_out = tagging.cache(shipped, apart, groups=part.groups // 5, seed=part.seed + 1, processes=processes)
    calibration = tagging.calibrate(model.head, held_out, tagging.trained_classes(bank), seed=part.seed)
    write_head(model, calibration, settings.out)


def audioset_labels(path: Path) -> dict[str, int]:
    """Display name -> index of the 527 AudioSet classes, from a CSV with the columns index and display_name."""
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(line for line in file if not line.startswith("#"))
            return {row["display_name"]: int(row["index"]) for row in rows}
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"data.labels: {path}: not a CSV with the columns index and display_name ({error})"
        ) from error


def make_bank(data: Data, *, part: str) -> Bank:
    """The bank of the train part, or a smaller one of the validation part with other synthetic voices."""
    recordings = read_recordings(data.manifest, audioset_labels(data.labels), part=part, without=data.without_speaker)
    if part == "train":
        return build(recordings, voices=data.voices, espeak=data.espeak, flite=data.flite, seed=data.seed)
    return build(recordings, voices=12, espeak=150, flite=30, seed=data.seed + 1)


def run(arguments: Sequence[str] | None = None) -> None:
    """`python -m streamer.training.nano --config FILE`."""
    parser = argparse.ArgumentParser(prog="streamer train nano", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/train_nano.yaml"))
    main(parser.parse_args(arguments).config, _say)


def _say(line: str) -> None:
    import sys

    sys.stderr.write(line + "\n")
