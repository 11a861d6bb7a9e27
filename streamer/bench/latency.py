"""`streamer bench latency`: how long after its end a word is shown, and how long until it is settled.

From the word's true end to its first appearance as `partial` and to its commit: in audio time (compute-free: the audio
that had to be heard) and in real time (the scene paced through the threads of the live program, on this machine).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from streamer.audio.files import read_audio
from streamer.bench import captions, machine
from streamer.bench.captions import percentile
from streamer.bench.paced import run_streams
from streamer.bench.quality import POLICIES, read_truth, with_policy
from streamer.bench.report import Report, Table
from streamer.bench.script import fixed_hop
from streamer.config import Settings
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE
from streamer.model.whisper import Model
from streamer.runtime.engine import Engine
from streamer.runtime.stream import Stream

CLOCKS = ("audio", "real")
SHARES = (50, 95)
COLUMNS = tuple(f"{what}_p{share}_s" for what in ("commit", "partial") for share in SHARES)


def measure(
    model: Model,
    settings: Settings,
    scenes: Sequence[Path],
    *,
    paced_s: float = 60.0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every policy on every scene with words; `paced_s`: of each scene, how much is played in real time (0: none)."""
    spoken = [(path, truth["words"]) for path in scenes if (truth := read_truth(path))["words"]]
    if not spoken:
        raise InputError("--scenes: no scene has words, so there is no latency to measure")
    result: dict[str, Any] = {
        "bench": "latency",
        "machine": machine.facts(torch.get_num_threads()),
        "model": model.name,
        "hop_s": settings.window.hop_s,
        "paced_s": paced_s,
        "policies": {},
    }
    for policy in POLICIES:
        chosen = with_policy(settings, policy)
        found: dict[str, tuple[list[float], list[float]]] = {clock: ([], []) for clock in CLOCKS}
        words = 0
        for path, truth in spoken:
            say(f"latency: {policy}, {path.stem}")
            words += len(truth)
            for clock, (commits, partials) in scene(model, chosen, path, truth, paced_s).items():
                found[clock][0].extend(commits)
                found[clock][1].extend(partials)
        result["policies"][policy] = {"words": words, **_percentiles(found)}
    result["load_after"] = machine.load()
    return result


def scene(
    model: Model, settings: Settings, path: Path, truth: Sequence[Mapping[str, Any]], paced_s: float
) -> dict[str, tuple[list[float], list[float]]]:
    """Commit and first-partial latencies of one scene by both clocks."""
    audio = read_audio(str(path))
    stream = Stream(model, settings)
    events = stream.push(audio) + stream.finish()
    timed = {"audio": captions.latencies(truth, captions.read([(event, event.audio_t) for event in events]))}
    if paced_s > 0:
        part = audio[: round(paced_s * SAMPLE_RATE)]
        engine = Engine(model, context=settings.model.context)
        engine.warm_up()
        heard = run_streams(engine, fixed_hop(settings), part, 1)[0]
        whole = [word for word in truth if word["end"] <= len(part) / SAMPLE_RATE]
        timed["real"] = captions.latencies(whole, captions.read(heard.events))
    return timed


def _percentiles(found: Mapping[str, tuple[list[float], list[float]]]) -> dict[str, Any]:
    return {
        f"{clock}_{what}_p{share}_s": percentile(values, share)
        for clock, pair in found.items()
        for what, values in zip(("commit", "partial"), pair, strict=True)
        for share in SHARES
    } | {"matched": len(found["audio"][0])}


def report(result: Mapping[str, Any]) -> Report:
    """The page: a row for each policy and clock."""
    policies: Mapping[str, Any] = result["policies"]
    rows = [
        [policy, clock, found["words"], *(found[f"{clock}_{column}"] for column in COLUMNS)]
        for policy, found in policies.items()
        for clock in CLOCKS
    ]
    return Report(
        name="latency",
        title=f"Latency per word: `{result['model']}`",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split())
        + f" Hop {result['hop_s']} s; of each scene {result['paced_s']:g} s were played in real time.",
        result=result,
        tables=(
            Table(
                "Seconds after the word's true end",
                ("policy", "clock", "words", "commit p50", "commit p95", "first partial p50", "first partial p95"),
                rows,
            ),
        ),
        draw=lambda figure: _draw(figure, rows),
    )


def _draw(figure: Any, rows: Sequence[Sequence[Any]]) -> None:
    axes = figure.subplots()
    labels = ("commit p50", "commit p95", "first partial p50", "first partial p95")
    for index, label in enumerate(labels):
        places = [place + index * 0.2 for place in range(len(rows))]
        axes.bar(places, [row[3 + index] or 0 for row in rows], 0.2, label=label)
    axes.set_xticks([place + 0.3 for place in range(len(rows))], [f"{row[0]}\n{row[1]} time" for row in rows])
    axes.set(ylabel="seconds after the word's end", title="Latency per word")
    axes.legend()
