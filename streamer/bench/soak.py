"""`streamer bench soak`: hours of audio as fast as they go; do cost per hop and memory stay flat?

The audio is looped, so every minute asks for the same work; the stream's clock runs on through all of it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from streamer.bench import machine
from streamer.bench.peers import Samples
from streamer.bench.report import Report, Table
from streamer.config import Settings
from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Event, Transcript
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream

POINTS = 240  # rows at most, however long the run


def measure(
    model: Model,
    settings: Settings,
    audio: Samples,
    hours: float,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Push `hours` of looped `audio` through one stream; a row for each loop or more of them."""
    hop = round(settings.window.hop_s * SAMPLE_RATE)
    audio = audio[: len(audio) // hop * hop]  # so that every loop meets the hops alike
    if not len(audio):
        raise InputError(f"--audio: at least {settings.window.hop_s:g} s are needed")
    loops = max(1, round(hours * 3600 * SAMPLE_RATE / len(audio)))
    each = -(-loops // POINTS)
    stream, rows = Stream(model, settings), []
    stream.engine.warm_up()
    result = {"bench": "soak", "machine": machine.facts(torch.get_num_threads()), "model": model.name}
    for first in range(0, loops, each):
        rows.append(_row(stream, model, audio, min(each, loops - first), hop, first * len(audio)))
        say(f"soak: {rows[-1]['audio_h']:.2f} h, {rows[-1]['ms_per_hop']:.1f} ms a hop, {rows[-1]['rss_mib']:.0f} MiB")
    stream.finish()
    return {**result, "audio_hours": rows[-1]["audio_h"], "rows": rows, **_drift(rows), "load_after": machine.load()}


def _row(stream: Stream, model: Model, audio: Samples, loops: int, hop: int, start: int) -> dict[str, Any]:
    passes, wall, cpu = model.encoder_passes, time.perf_counter(), time.process_time()
    events: list[Event] = []
    for _ in range(loops):
        for at in range(0, len(audio), hop):
            events += stream.push(audio[at : at + hop])
    hops = loops * (len(audio) // hop)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "audio_h": (start + loops * len(audio)) / SAMPLE_RATE / 3600,
        "ms_per_hop": 1000 * wall / hops,
        "cpu_ms_per_hop": 1000 * cpu / hops,
        "passes_per_hop": (model.encoder_passes - passes) / hops,
        "rss_mib": machine.resident_mib(),
        "events": len(events),
        "finals": sum(isinstance(event, Transcript) and event.final for event in events),
        "load": machine.load()[0],
    }


def _drift(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last fifth over the second one (the first warms up): 1 is flat; memory also in MiB an hour of audio."""
    fifth = max(1, len(rows) // 5)
    early = rows[fifth : 2 * fifth] or rows
    late = rows[-fifth:]

    def middle(part: Sequence[Mapping[str, Any]], key: str) -> float:
        return float(np.median([row[key] for row in part]))

    found: dict[str, Any] = {
        f"{key}_late_over_early": round(middle(late, key) / max(middle(early, key), 1e-9), 3)
        for key in ("ms_per_hop", "cpu_ms_per_hop", "rss_mib")
    }
    settled = rows[fifth:]
    slope = 0.0
    if len(settled) > 2:
        slope = np.polyfit([row["audio_h"] for row in settled], [row["rss_mib"] for row in settled], 1)[0]
    return {**found, "rss_mib_per_audio_hour": round(float(slope), 2)}


def report(result: Mapping[str, Any]) -> Report:
    """The page: cost and memory over the hours."""
    rows: Sequence[Mapping[str, Any]] = result["rows"]
    shown = rows[:: max(1, len(rows) // 12)]
    columns = ("audio_h", "ms_per_hop", "cpu_ms_per_hop", "passes_per_hop", "rss_mib", "events", "finals", "load")
    return Report(
        name="soak",
        title=f"{result['audio_hours']:.2g} hours of audio at once: `{result['model']}`",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split())
        + f" Late over early: {result['ms_per_hop_late_over_early']} (time), "
        f"{result['cpu_ms_per_hop_late_over_early']} (processor time), {result['rss_mib_late_over_early']} (memory); "
        f"memory grows by {result['rss_mib_per_audio_hour']} MiB per hour of audio.",
        result=result,
        tables=(Table("Every so often", columns, [[row[key] for key in columns] for row in shown]),),
        draw=lambda figure: _draw(figure, rows),
    )


def _draw(figure: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    hours = [row["audio_h"] for row in rows]
    cost, memory = figure.subplots(2, 1, sharex=True)
    cost.plot(hours, [row["ms_per_hop"] for row in rows], label="wall clock")
    cost.plot(hours, [row["cpu_ms_per_hop"] for row in rows], label="processor time")
    cost.set(ylabel="ms a hop")
    cost.legend()
    memory.plot(hours, [row["rss_mib"] for row in rows])
    memory.set(ylabel="memory, MiB", xlabel="hours of audio")
    for part in (cost, memory):
        part.set_ylim(0, 1.15 * part.get_ylim()[1])
