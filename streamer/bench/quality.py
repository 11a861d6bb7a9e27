"""`streamer bench quality`: word errors, invented words, tags and latency on scenes with exact ground truth.

A scene is `NAME.flac` with `NAME.json` beside it: {"words": [{word, start, end}], "events": [{label, start, end}]}.
The peers, on the same weights: openai-whisper's own `transcribe`, offline, temperature 0, and, where faster-whisper is
installed (extra `bench`), a streaming loop over it.
"""

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.audio.files import read_audio
from streamer.bench import agreement_loop, captions, machine
from streamer.bench.captions import percentile, plain_words
from streamer.bench.peers import PeerAbsentError
from streamer.bench.report import Report, Table
from streamer.config import GuardSettings, PolicySettings, Settings
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Event, Tags, Transcript
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream

SPEECH_TOP = 3
POLICIES = ("agreement", "alignatt")
COLUMNS = (
    *("wer", "offline_wer", "commit_p50_s", "commit_p95_s", "partial_p50_s", "partial_p95_s", "erasure"),
    *("retractions", "invented_per_minute", "offline_invented_per_minute", "single_steps_per_hop", "drafted_per_hop"),
)


@dataclass(slots=True)
class SceneScore:
    """What one scene gave. Latencies in seconds of audio: commit, and first partial, minus the word's true end.

    `decodes`: hops with text.  `single_steps`: decoder steps of one token in them.  `drafted`: tokens that none was
    needed for, since the last hypothesis had them right.
    """

    name: str
    seconds: float
    reference: list[str]
    heard: list[str]
    offline: list[str]
    passes: int
    hops: int
    tag_seconds: int
    spoken_seconds: int
    speech_seen: int
    commit_latency_s: list[float] = field(default_factory=list)
    partial_latency_s: list[float] = field(default_factory=list)
    withdrawn: int = 0
    retractions: int = 0
    decodes: int = 0
    single_steps: int = 0
    drafted: int = 0

    def as_row(self) -> dict[str, Any]:
        """The scene as one row of the table."""
        return {
            "scene": self.name,
            "words": len(self.reference),
            "wer": word_error_rate(self.reference, self.heard),
            "offline_wer": word_error_rate(self.reference, self.offline),
            "invented_per_minute": None if self.reference else len(self.heard) / self.seconds * 60,
            "offline_invented_per_minute": None if self.reference else len(self.offline) / self.seconds * 60,
            "passes": self.passes,
            "hops": self.hops,
            "tag_seconds": self.tag_seconds,
            "speech_top3": self.speech_seen / self.spoken_seconds if self.spoken_seconds else None,
            "commit_p50_s": percentile(self.commit_latency_s, 50),
            "commit_p95_s": percentile(self.commit_latency_s, 95),
            "partial_p50_s": percentile(self.partial_latency_s, 50),
            "erasure": self.withdrawn / max(1, len(self.heard)),
            "retractions": self.retractions,
        }


def word_error_rate(reference: Sequence[str], heard: Sequence[str]) -> float | None:
    """Word error rate by jiwer; None without reference words."""
    import jiwer

    return float(jiwer.wer(" ".join(reference), " ".join(heard))) if reference else None


def run_scene(model: Model, settings: Settings, path: Path, *, offline: bool = True) -> tuple[SceneScore, list[Event]]:
    """Stream one scene through the engine as fast as it goes and score its events."""
    truth = read_truth(path)
    audio = read_audio(str(path))
    before = model.encoder_passes
    stream = Stream(model, settings)
    events = stream.push(audio) + stream.finish()
    score = score_scene(path.stem, truth, events, len(audio), settings.window.hop_s)
    score.passes = model.encoder_passes - before
    search = stream.engine.search
    score.decodes, score.drafted = search.windows, search.accepted
    score.single_steps = search.passes - search.windows  # the first step of a window reads all that is given
    score.offline = offline_words(model, audio) if offline else []
    return score, events


def score_scene(name: str, truth: dict[str, Any], events: Sequence[Event], samples: int, hop_s: float) -> SceneScore:
    """What the events of a scene of so many samples are worth; `passes` and `offline` are left open."""
    finals = [event for event in events if isinstance(event, Transcript) and event.final]
    spoken, seen = speech_seconds(truth["words"], events)
    found = captions.read([(event, event.audio_t) for event in events])
    commits, partials = captions.latencies(truth["words"], found)
    return SceneScore(
        name=name,
        seconds=samples / SAMPLE_RATE,
        reference=[word["word"] for word in truth["words"]],
        heard=[word for event in finals for word in plain_words(event.text)],
        offline=[],
        passes=0,
        hops=-(-samples // round(hop_s * SAMPLE_RATE)),
        tag_seconds=sum(isinstance(event, Tags) for event in events),
        spoken_seconds=spoken,
        speech_seen=seen,
        commit_latency_s=commits,
        partial_latency_s=partials,
        withdrawn=found.withdrawn,
        retractions=found.retractions,
    )


def read_truth(path: Path) -> dict[str, Any]:
    """The scene's words and sound events. Raises InputError when the JSON beside it is missing or says neither."""
    try:
        truth = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return {"words": list(truth["words"]), "events": list(truth.get("events", []))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path.with_suffix('.json')}: must hold the scene's words and events") from None


def find_scenes(folder: Path) -> list[Path]:
    """The scenes in a folder, in order of their names. Raises InputError when there are none."""
    found = sorted(path for path in folder.glob("*.flac") if path.with_suffix(".json").is_file())
    if not found:
        raise InputError(f"--scenes {folder}: must be a folder with NAME.flac and NAME.json files")
    return found


def offline_words(model: Model, audio: NDArray[np.float32]) -> list[str]:
    """What openai-whisper's `transcribe` writes on the same weights."""
    import whisper

    found = whisper.transcribe(
        whisper_module(model), audio, temperature=0.0, language="en", fp16=False, condition_on_previous_text=False
    )
    return plain_words(found["text"])


_float_modules: dict[int, Any] = {}


def whisper_module(model: Model) -> Any:
    """openai-whisper's own float32 module with this model's weights; its code does not take bfloat16."""
    from whisper.model import Whisper

    if id(model) not in _float_modules:
        module = Whisper(model.dims)
        module.load_state_dict({key: value.float() for key, value in model.module.state_dict().items()})
        module.alignment_heads = model.module.alignment_heads
        _float_modules[id(model)] = module.eval()
    return _float_modules[id(model)]


def speech_seconds(words: Sequence[dict[str, Any]], events: Sequence[Event]) -> tuple[int, int]:
    """How many seconds hold at least half a second of words, and in how many of them Speech is among the top three."""
    spoken = seen = 0
    for event in events:
        if not isinstance(event, Tags) or event.end - 1 < 0:
            continue
        said = sum(max(0.0, min(word["end"], event.end) - max(word["start"], event.end - 1)) for word in words)
        if said >= 0.5:
            spoken += 1
            seen += any(tag.label == "Speech" for tag in event.tags[:SPEECH_TOP])
    return spoken, seen


def summary(scores: Sequence[SceneScore]) -> dict[str, Any]:
    """The figures of all scenes together."""
    spoken = [score for score in scores if score.reference]
    quiet = [score for score in scores if not score.reference]
    commits = [value for score in spoken for value in score.commit_latency_s]
    partials = [value for score in spoken for value in score.partial_latency_s]
    minutes = sum(score.seconds for score in quiet) / 60
    reference = [word for score in spoken for word in score.reference]
    return {
        "wer": word_error_rate(reference, [word for score in spoken for word in score.heard]),
        "offline_wer": word_error_rate(reference, [word for score in spoken for word in score.offline]),
        "invented_per_minute": sum(len(score.heard) for score in quiet) / minutes if minutes else None,
        "offline_invented_per_minute": sum(len(score.offline) for score in quiet) / minutes if minutes else None,
        "commit_p50_s": percentile(commits, 50),
        "commit_p95_s": percentile(commits, 95),
        "partial_p50_s": percentile(partials, 50),
        "partial_p95_s": percentile(partials, 95),
        "retractions": sum(score.retractions for score in scores),
        "erasure": sum(score.withdrawn for score in spoken) / max(1, sum(len(score.heard) for score in spoken)),
        "speech_top3": sum(s.speech_seen for s in spoken) / max(1, sum(s.spoken_seconds for s in spoken)),
        **_per_decode(scores),
        "passes_per_hop": statistics.mean(score.passes / score.hops for score in scores) if scores else None,
    }


def _per_decode(scores: Sequence[SceneScore]) -> dict[str, float | None]:
    """What one hop with text costs in steps of one token, and what the draft saved; None for a peer."""
    decodes = sum(score.decodes for score in scores)
    return {
        "single_steps_per_hop": sum(score.single_steps for score in scores) / decodes if decodes else None,
        "drafted_per_hop": sum(score.drafted for score in scores) / decodes if decodes else None,
    }


def measure(
    model: Model, settings: Settings, scenes: Sequence[Path], say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Both policies on all scenes, and the guards one by one on those without speech."""
    result: dict[str, Any] = {
        "bench": "quality",
        "machine": machine.facts(torch.get_num_threads()),
        "model": model.name,
        "hop_s": settings.window.hop_s,
        "frontier_s": settings.policy.frontier_s,
        "policies": {},
        "guards": {},
    }
    quiet = [path for path in scenes if not read_truth(path)["words"]]
    offline: dict[str, list[str]] = {}
    for policy in POLICIES:
        chosen = with_policy(settings, policy)
        scores = []
        for path in scenes:
            say(f"quality: {policy}, {path.stem}")
            score, _ = run_scene(model, chosen, path, offline=path.stem not in offline)
            score.offline = offline.setdefault(path.stem, score.offline)
            scores.append(score)
        rows = [score.as_row() for score in scores]
        result["policies"][policy] = {"summary": summary(scores), "scenes": rows, "kinds": by_kind(scores)}
        result["guards"][policy] = {
            name: invented_per_minute(model, with_guards(chosen, guards), quiet, lambda line: say(f"quality: {line}"))
            for name, guards in guard_sets().items()
            if quiet
        }
    result["peers"] = {agreement_loop.NAME: measure_loop(model, settings, scenes, offline, say)}
    return result


def measure_loop(
    model: Model,
    settings: Settings,
    scenes: Sequence[Path],
    offline: Mapping[str, list[str]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The streaming peer on all scenes, hop by hop; `absent` says why not."""
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            transcribe = agreement_loop.faster_transcriber(
                whisper_module(model), Path(folder), torch.get_num_threads(), prompts=model.previous_text
            )
        except PeerAbsentError as error:
            return {"absent": str(error)}
        for path in scenes:
            say(f"quality: {agreement_loop.NAME}, {path.stem}")
            audio = read_audio(str(path))
            events = agreement_loop.captions_of(transcribe, audio, settings.window.hop_s)
            score = score_scene(path.stem, read_truth(path), events, len(audio), settings.window.hop_s)
            score.offline = offline.get(path.stem, [])
            scores.append(score)
    return {"summary": summary(scores), "scenes": [score.as_row() for score in scores], "kinds": by_kind(scores)}


def with_policy(settings: Settings, name: str) -> Settings:
    """The same settings under another policy."""
    policy = PolicySettings.model_validate({**settings.policy.model_dump(), "name": name})
    return settings.model_copy(update={"policy": policy})


def with_guards(settings: Settings, on: Sequence[str]) -> Settings:
    """The same settings with no other guards than these."""
    switches = {name: name in on for name in switchable_guards()}
    return settings.model_copy(update={"guards": settings.guards.model_copy(update=switches)})


def switchable_guards() -> list[str]:
    """The guards that can be switched off."""
    return [name for name, given in GuardSettings.model_fields.items() if given.annotation is bool]


def guard_sets() -> dict[str, list[str]]:
    """What the ablation runs: all guards, none, each alone."""
    names = switchable_guards()
    return {"all": names, "none": [], **{name: [name] for name in names}}


def invented_per_minute(
    model: Model, settings: Settings, quiet: Sequence[Path], say: Callable[[str], None]
) -> float | None:
    """Words written on scenes without speech, per minute."""
    words, seconds = 0, 0.0
    for path in quiet:
        say(f"guards, {path.stem}")
        score, _ = run_scene(model, settings, path, offline=False)
        words, seconds = words + len(score.heard), seconds + score.seconds
    return round(words / seconds * 60, 3) if seconds else None


def by_kind(scores: Sequence[SceneScore]) -> dict[str, dict[str, Any]]:
    """Word error rates by kind of scene: the name without its last number."""
    kinds: dict[str, list[SceneScore]] = {}
    for score in scores:
        if score.reference:
            kinds.setdefault(score.name.rpartition("_")[0] or score.name, []).append(score)
    found = {}
    for kind, group in sorted(kinds.items()):
        sums = summary(group)
        found[kind] = {key: sums[key] for key in ("wer", "offline_wer", "commit_p50_s", "commit_p95_s", "erasure")}
    return found


def report(result: Mapping[str, Any]) -> Report:
    """The page: policies, kinds of scenes, guards."""
    policies: Mapping[str, Any] = result["policies"]
    names = [row["scene"] for row in next(iter(policies.values()))["scenes"]]
    absent = [found["absent"] for found in result["peers"].values() if "absent" in found]
    measured = {**policies, **{name: found for name, found in result["peers"].items() if "absent" not in found}}
    return Report(
        name="quality",
        title=f"Quality on scenes with exact ground truth: `{result['model']}`",
        about=(
            "Latencies in seconds of audio (compute-free), from a word's true end. `offline`: openai-whisper's "
            f"`transcribe` on the whole file, same weights, float32. Hop {result['hop_s']} s, AlignAtt frontier "
            f"{result['frontier_s']} s. Erasure: partial words withdrawn per final word."
            + " Steps: of one token in the decoder, for each hop with text; drafted: tokens that needed none."
            + "".join(f" Left out: {reason}." for reason in absent)
        ),
        result=result,
        tables=(
            Table(
                f"{len(names)} scenes together: {', '.join(names)}",
                ("policy", *COLUMNS),
                [[name, *(found["summary"][key] for key in COLUMNS)] for name, found in measured.items()],
            ),
            Table(
                "By kind of scene",
                ("policy", "scenes", "WER", "offline WER", "commit p50 s", "commit p95 s", "erasure"),
                [
                    [name, kind, *row.values()]
                    for name, found in measured.items()
                    for kind, row in found["kinds"].items()
                ],
            ),
            *_guard_tables(result["guards"]),
        ),
        draw=lambda figure: _draw(figure, measured),
    )


def _guard_tables(guards: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """None where no scene was without speech."""
    if not any(guards.values()):
        return []
    return [
        Table(
            "Words invented per minute on scenes without speech, with these guards only (the voice gate stays on)",
            ("policy", *next(iter(guards.values()))),
            [[name, *found.values()] for name, found in guards.items()],
        )
    ]


def _draw(figure: Any, measured: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    width = 0.8 / len(measured)
    for index, (name, found) in enumerate(measured.items()):
        rows = found["kinds"].values()
        places = [place + index * width for place in range(len(rows))]
        axes.bar(places, [100 * row["wer"] for row in rows], width, label=name)
    kinds = next(iter(measured.values()))["kinds"]
    middles = [place + 0.4 - width / 2 for place in range(len(kinds))]
    offline = [100 * row["offline_wer"] for row in kinds.values()]
    axes.plot(middles, offline, "k_", markersize=36, label="offline")
    axes.set_xticks(middles, list(kinds), rotation=20, fontsize=8)
    axes.set(ylabel="word error rate, %", title="Streaming against openai-whisper offline")
    axes.legend()
