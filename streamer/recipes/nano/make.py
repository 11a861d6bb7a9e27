"""`streamer train nano`: from a manifest and synthesis to the shipped files."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from streamer.errors import ConfigError
from streamer.recipes.nano import loop, tagging
from streamer.recipes.nano.bank import Bank, build
from streamer.recipes.nano.network import Nano
from streamer.recipes.nano.publish import shipped_form, write_backbone, write_head
from streamer.recipes.nano.settings import Data, Settings, load
from streamer.recipes.nano.vocabulary import Vocabulary, used_tokens
from streamer.recipes.nano.words import vocabulary
from streamer.recipes.synthesis.clips import SoundClip, read_recordings
from streamer.recipes.synthesis.household import household, others


def main(config: Path, report: Callable[[str], None] = lambda line: None) -> Path:
    """Train `nano` as the YAML file says and return the folder with nano.pt, nano.json, nano_at.pth, nano_at.json.

    A killed run goes on from its last saved state. Raises ConfigError and InputError.
    """
    settings = load(config)
    report(f"making the bank from {settings.data.manifest}")
    bank = make_bank(settings.data, part="train")
    bank = balanced(with_made_sounds(bank, settings.data))
    words, phones = used_tokens(), loop.phones_of(vocabulary())

    def work(rank: int) -> None:
        run = loop.start(settings, words, phones)
        report(f"process {rank}: training from step {run.step} to {loop.all_steps(settings.schedule)}")
        loop.train(run, bank, words, phones, settings, report, rank)

    loop.launch(settings.schedule.processes, work)
    run = loop.start(settings, words, phones)
    write_backbone(run.average, words, settings.out)
    finish_head(run.average, bank, words, settings, report)
    return settings.out


def with_made_sounds(bank: Bank, data: Data) -> Bank:
    """The same bank with synthesised sounds beside the recorded ones."""
    made = others(each=data.beepers, seed=data.seed + 2) + household(each=data.household, seed=data.seed + 3)
    return replace(bank, sounds=bank.sounds + made)


def balanced(bank: Bank) -> Bank:
    """The same bank with every category of sounds equally often."""
    groups: dict[str, list[SoundClip]] = {}
    for clip in bank.sounds:
        groups.setdefault(clip.category, []).append(clip)
    most = max(map(len, groups.values()))
    sounds = [clips[i % len(clips)] for clips in groups.values() for i in range(most)]
    return replace(bank, sounds=tuple(sounds))


def finish_head(model: Nano, bank: Bank, words: Vocabulary, settings: Settings, report: Callable[[str], None]) -> None:
    """Train the tagging head on the shipped backbone's taps, calibrate it on the validation part, write both files."""
    part, shipped, processes = settings.head, shipped_form(model, words), settings.schedule.processes
    report("computing taps")
    taps = tagging.cache(shipped, bank, groups=part.groups, seed=part.seed, processes=processes)
    model.head = tagging.train_head(model.head, taps, steps=part.steps, seed=part.seed, report=report)
    apart = make_bank(settings.data, part="validation")
    apart = balanced(replace(apart, sounds=apart.sounds + others(each=6, seed=part.seed + 1)))
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
