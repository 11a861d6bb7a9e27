"""Runs the whole judgement of a `nano` and writes it as JSON: `python -m streamer.recipes.nano.report FOLDER …`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from streamer.recipes.nano.judge import (
    Judged,
    Scene,
    alarm_seconds,
    load_judged,
    load_scenes,
    mean_average_precision,
    single_digits,
    text_of,
    transcribed,
    word_errors,
)
from streamer.recipes.nano.make import audioset_labels
from streamer.recipes.synthesis.clips import read_recordings


def judge(folder: Path, data: Path, scenes: Path) -> dict[str, Any]:
    """All scores of the nano in `folder` on the test split of `data`/manifest.csv and on `scenes`."""
    judged, labels = load_judged(folder), audioset_labels(data / "audioset_labels.csv")
    found = load_scenes(scenes)
    mean, each = mean_average_precision(judged, read_recordings(data / "manifest.csv", labels, part="test").sounds)
    names = {index: name for name, index in labels.items()}
    return {
        "digits alone": single_digits(judged.model, data / "manifest.csv", labels),
        "text": {scene.name: _text(judged, scene) for scene in found},
        "transcribe": {scene.name: _transcribe(judged, scene) for scene in found},
        "mAP": {"mean": round(mean, 4), "classes": {names[index]: round(value, 3) for index, value in each.items()}},
        "alarms": {scene.name: alarm_seconds(judged, scene, labels) for scene in found if scene.events},
    }


def _text(judged: Judged, scene: Scene) -> dict[str, Any]:
    found, heard = text_of(judged.model, scene)
    lowest = min(item.mean_logprob for item in heard)
    return {**word_errors([word.text for word in scene.words], found), "lowest_logprob": round(lowest, 3)}


def _transcribe(judged: Judged, scene: Scene) -> dict[str, Any]:
    found, facts = transcribed(judged.model, scene)
    return {**word_errors([word.text for word in scene.words], found), **facts}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m streamer.recipes.nano.report", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.csv and audioset_labels.csv")
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    json.dump(judge(options.folder, options.data, options.scenes), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
