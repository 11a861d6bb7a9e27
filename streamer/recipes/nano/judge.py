"""The scores of a finished `nano`: text, silence and tags on recordings and scenes that it was not trained on.

`python -m streamer.recipes.nano.judge FOLDER …` reads the test split of the manifest and composed scenes (`NAME.flac`
with `NAME.json`: words and events with times) and writes JSON. Nothing here may be used to choose settings.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from streamer.errors import CheckpointError
from streamer.events import SAMPLE_RATE
from streamer.measure.word_errors import word_errors
from streamer.recipes.nano.hearing import Heard, encode, load_head, write
from streamer.recipes.nano.make import audioset_labels
from streamer.recipes.nano.network import TagHead
from streamer.recipes.synthesis.clips import Audio, SoundClip, TimedWord, read_audio, read_recordings

LONGEST = 10 * SAMPLE_RATE  # of the windows that scenes are cut into
SPANS_TAPS = (3, 5, 12, 25)  # 1, 2, 5 and 10 s


@dataclass(frozen=True, slots=True)
class Judged:
    """A model under judgement: backbone, head and the head's calibration [527]."""

    model: whisper.Whisper
    head: TagHead
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    thresholds: NDArray[np.float32]

    def scores(self, taps: torch.Tensor) -> NDArray[np.float32]:
        """Calibrated scores [B, 527] of taps [B, layers, steps, d]."""
        with torch.inference_mode():
            logits = self.head(taps).numpy()
        return np.asarray(1 / (1 + np.exp(-(self.a * logits + self.b))), np.float32)


@dataclass(frozen=True, slots=True)
class Scene:
    """A composed recording and its truth; `events` as (label, start, end) in seconds."""

    name: str
    audio: Audio
    words: tuple[TimedWord, ...]
    events: tuple[tuple[str, float, float], ...]


def load_judged(folder: Path) -> Judged:
    """nano.pt, nano_at.pth and nano_at.json of a folder."""
    try:
        model = whisper.load_model(str(folder / "nano.pt"), device="cpu").eval()
        facts = json.loads((folder / "nano_at.json").read_text())
        state = torch.load(folder / "nano_at.pth", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder}: no complete nano there ({error})") from error
    a, b = (np.array(facts["calibration"][name], np.float32) for name in ("scale", "offset"))
    head = load_head(state, model.dims.n_audio_state)
    return Judged(model, head, a, b, np.array(facts["thresholds"], np.float32))


def load_scenes(folder: Path) -> list[Scene]:
    """All scenes of a folder, by name."""
    scenes = []
    for path in sorted(folder.glob("*.json")):
        truth = json.loads(path.read_text())
        words = tuple(
            TimedWord(word["word"], int(word["start"] * SAMPLE_RATE), int(word["end"] * SAMPLE_RATE))
            for word in truth.get("words", [])
        )
        events = tuple((event["label"], event["start"], event["end"]) for event in truth.get("events", []))
        scenes.append(Scene(path.stem, read_audio(path.with_suffix(".flac")), words, events))
    return scenes


def windows(scene: Scene, longest: int = LONGEST) -> list[tuple[int, int]]:
    """The scene cut into windows of 2 s to `longest` samples, in the middle of the longest pause where it has words."""
    ends = [word.end for word in scene.words]
    starts = [word.start for word in scene.words]
    cuts, place = [0], 0
    while len(scene.audio) - place > longest:
        pauses = [
            (start - end, (start + end) // 2)
            for end, start in zip([0, *ends], [*starts, len(scene.audio)], strict=True)
            if place + 2 * SAMPLE_RATE <= (start + end) // 2 <= place + longest
        ]
        late = [pause for pause in pauses if pause[1] > place + longest // 2 and pause[0] > SAMPLE_RATE // 8]
        place = max(late or pauses)[1] if pauses else place + longest
        cuts.append(place)
    if len(scene.audio) - place < 2 * SAMPLE_RATE and len(cuts) > 1:
        cuts.pop()
    return list(zip(cuts, [*cuts[1:], len(scene.audio)], strict=True))


def text_of(model: whisper.Whisper, scene: Scene) -> tuple[list[str], list[Heard]]:
    """The words of a scene, window by window, and what was heard in each."""
    found: list[str] = []
    heard = []
    for start, end in windows(scene):
        result = write(model, encode(model, [scene.audio[start:end]])[0])[0]
        heard.append(result)
        found += result.words
    return found, heard


def counted(truth: Sequence[str], written: Sequence[str]) -> dict[str, float]:
    """Word errors and their parts."""
    found = word_errors(" ".join(truth), " ".join(written))
    if found.rate is None:
        return {"invented": found.invented}
    return {
        "wer": round(found.rate, 4),
        "substituted": found.substituted,
        "left_out": found.lost,
        "invented": found.invented,
        "words": found.words,
    }


def transcribed(model: whisper.Whisper, scene: Scene) -> tuple[list[str], dict[str, float]]:
    """openai-whisper's own `transcribe` with its defaults: words, and how often a fallback was needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: dict[str, Any] = model.transcribe(scene.audio, language="en", fp16=False)
    segments = result["segments"]
    facts = {
        "fallbacks": sum(segment["temperature"] > 0 for segment in segments),
        "lowest_logprob": round(min((segment["avg_logprob"] for segment in segments), default=0.0), 3),
        "highest_compression": round(max((segment["compression_ratio"] for segment in segments), default=0.0), 2),
    }
    return result["text"].lower().replace(".", "").replace(",", "").split(), facts


def single_digits(model: whisper.Whisper, manifest: Path, labels: dict[str, int]) -> dict[str, float]:
    """The share of the test split's digits, alone in 2 s of near silence, that come out as exactly the right word."""
    right: dict[str, list[bool]] = {}
    random = np.random.default_rng(3)
    for speaker, clips in read_recordings(manifest, labels, part="test").digits.items():
        for clip in clips:
            audio = random.normal(0, 3e-4, 2 * SAMPLE_RATE).astype(np.float32)
            start = max(0, (len(audio) - len(clip.audio)) // 2)
            audio[start : start + len(clip.audio)] += clip.audio[: len(audio)]
            heard = write(model, encode(model, [audio])[0])[0]
            right.setdefault(speaker, []).append(heard.words == (clip.words[0].text,))
    scores = {speaker: round(float(np.mean(values)), 4) for speaker, values in right.items()}
    return {"all": round(float(np.mean([value for values in right.values() for value in values])), 4), **scores}


def mean_average_precision(judged: Judged, sounds: Sequence[SoundClip]) -> tuple[float, dict[int, float]]:
    """mAP over the classes that occur in `sounds`, each judged as a whole clip, and the AP of each class."""
    logits = []
    for sound in sounds:
        logits.append(judged.scores(encode(judged.model, [sound.audio])[1])[0])
    scores = np.stack(logits)
    truth = np.zeros_like(scores)
    for row, sound in enumerate(sounds):
        truth[row, list(sound.labels)] = 1
    present = np.flatnonzero(truth.any(axis=0))
    each = {int(index): float(average_precision_score(truth[:, index], scores[:, index])) for index in present}
    return float(np.mean(list(each.values()))), each


def second_by_second(judged: Judged, audio: Audio, context_s: float = 10.0) -> NDArray[np.float32]:
    """Scores [seconds, 527] at the end of each second: the best of the spans of 1, 2, 5 and 10 s."""
    rows = []
    for second in range(1, len(audio) // SAMPLE_RATE + 1):
        end = second * SAMPLE_RATE
        start = max(0, end - int(context_s * SAMPLE_RATE))
        window = audio[start:end] if end - start >= 2 * SAMPLE_RATE else np.pad(audio[:end], (2 * SAMPLE_RATE - end, 0))
        taps = encode(judged.model, [window])[1]
        spans = [taps[:, :, -steps:] for steps in SPANS_TAPS if steps <= taps.shape[2]]
        rows.append(np.max([judged.scores(part)[0] for part in spans], axis=0))
    return np.stack(rows)


def alarm_seconds(judged: Judged, scene: Scene, labels: dict[str, int]) -> dict[str, float]:
    """For each class of a scene's events: the share of its seconds (after the first) that are over its threshold.

    `false seconds`: seconds outside of every event (and 10 s after) at which an event's class is over its threshold.
    """
    scores = second_by_second(judged, scene.audio)
    result: dict[str, float] = {}
    for name in {event[0] for event in scene.events}:
        index = labels[name]
        over = scores[:, index] >= judged.thresholds[index]
        ends = np.arange(1, len(scores) + 1)
        during, near = np.zeros(len(scores), bool), np.zeros(len(scores), bool)
        for label, start, end in scene.events:
            if label == name:
                during |= (ends >= start + 1) & (ends <= end)
                near |= (ends > start) & (ends < end + 10)
        result[f"{name}: recognised"] = round(float(over[during].mean()), 3) if during.any() else 1.0
        result[f"{name}: false seconds"] = int((over & ~near).sum())
    return result


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
    return {**counted([word.text for word in scene.words], found), "lowest_logprob": round(lowest, 3)}


def _transcribe(judged: Judged, scene: Scene) -> dict[str, Any]:
    found, facts = transcribed(judged.model, scene)
    return {**counted([word.text for word in scene.words], found), **facts}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m streamer.recipes.nano.judge", description=__doc__)
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
