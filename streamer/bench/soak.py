"""`streamer bench soak`: hours of audio as fast as they go; do cost per hop, memory and word times stay as they are?

The audio is looped, so every loop asks for the same work; the stream's clock runs on through all of it. A word's drift
is how far its start, counted from its loop's, lies from where the same word started in the second loop.
"""

import difflib
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamer.errors import InputError
from streamer.events import SAMPLE_RATE, Event, Transcript, Word
from streamer.measure.recordings import Recording
from streamer.measure.report import Report, Table
from streamer.model.machine_facts import load, machine_facts
from streamer.model.whisper import Model
from streamer.runtime.stream import Stream
from streamer.settings.config import Settings

Samples = NDArray[np.float32]
POINTS = 240  # rows at most, however long the run
PAUSE_S, HISS = 1.0, 1e-4  # between recordings of a loop

SLOPES = {"cpu_ms_per_hop": "cpu_ms_per_hop_per_audio_hour", "rss_mib": "rss_mib_per_audio_hour"}


def speech_loop(recordings: Iterable[Recording], seconds: float) -> Samples:
    """Recordings with speech, one of each set in turn, up to so many seconds, with pauses between; float32 [n].

    Raises InputError where there are none.
    """
    sets: dict[str, list[Recording]] = {}
    for recording in recordings:
        if recording.text:
            sets.setdefault(recording.set, []).append(recording)
    pause = np.random.default_rng(0).normal(0.0, HISS, round(PAUSE_S * SAMPLE_RATE)).astype(np.float32)
    parts: list[Samples] = []
    while any(sets.values()):
        for waiting in sets.values():
            if not waiting:
                continue
            parts += [waiting.pop(0).samples(), pause]
            if sum(map(len, parts)) >= seconds * SAMPLE_RATE:
                return np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]
    if not parts:
        raise InputError("--data: no recording has a text, so there is no speech to loop")
    return np.concatenate(parts)


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
    stream, rows, drift = Stream(model, settings), [], Drift(len(audio) / SAMPLE_RATE)
    stream.engine.warm_up()
    result = {"bench": "soak", "machine": machine_facts(torch.get_num_threads()), "model": model.name}
    for first in range(0, loops, each):
        row, events = _row(stream, model, audio, min(each, loops - first), hop, first * len(audio))
        rows.append(row)
        drift.add(committed(events))
        say(f"soak: {row['audio_h']:.2f} h, {row['ms_per_hop']:.1f} ms a hop, {row['rss_mib']:.0f} MiB")
    drift.add(committed(stream.finish()))
    return {
        **result,
        "loop_s": len(audio) / SAMPLE_RATE,
        "audio_hours": rows[-1]["audio_h"],
        "rows": rows,
        **changes(rows),
        **drift.finish(),
        "peak_mib": peak_mib(),
        "load_after": load(),
    }


def _row(
    stream: Stream, model: Model, audio: Samples, loops: int, hop: int, start: int
) -> tuple[dict[str, Any], list[Event]]:
    passes, wall, cpu = model.encoder_passes, time.perf_counter(), time.process_time()
    events: list[Event] = []
    for _ in range(loops):
        for at in range(0, len(audio), hop):
            events += stream.push(audio[at : at + hop])
    hops = loops * (len(audio) // hop)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    row = {
        "audio_h": (start + loops * len(audio)) / SAMPLE_RATE / 3600,
        "ms_per_hop": 1000 * wall / hops,
        "cpu_ms_per_hop": 1000 * cpu / hops,
        "passes_per_hop": (model.encoder_passes - passes) / hops,
        "rss_mib": resident_mib(),
        "events": len(events),
        "finals": sum(isinstance(event, Transcript) and event.final for event in events),
        "load": load()[0],
    }
    return row, events


def committed(events: Sequence[Event]) -> list[Word]:
    """The words of the segments that were closed: each once."""
    return [word for event in events if isinstance(event, Transcript) and event.final for word in event.words]


def changes(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last fifth over the second one (the first warms up): 1 is flat; and how cost and memory rise by the hour."""
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
    return found | {
        name: _slope([row["audio_h"] for row in settled], [row[key] for row in settled]) for key, name in SLOPES.items()
    }


class Drift:
    """How word times move from loop to loop. Keeps the second loop and the current one only: memory is measured too."""

    def __init__(self, loop_s: float) -> None:
        self._loop_s = loop_s
        self._number = 0
        self._current: list[tuple[str, float]] = []
        self._second: list[tuple[str, float]] = []
        self._medians: dict[int, float] = {}
        self._last: list[float] = []
        self.words = 0

    def add(self, words: Sequence[Word]) -> None:
        """Take the next committed words, in their order."""
        for word in words:
            number = int(word.start // self._loop_s)
            if number > self._number:
                self._end_loop()
                self._number = number
            self._current.append((word.word, word.start - number * self._loop_s))
            self.words += 1

    def finish(self) -> dict[str, Any]:
        """Median and largest shift (s) of the last loop against the second, and the slope; None before three loops."""
        self._end_loop()
        hours = [number * self._loop_s / 3600 for number in self._medians]
        return {
            "words": self.words,
            "words_matched_in_last_loop": len(self._last),
            "word_drift_median_s": round(float(np.median(self._last)), 3) if self._last else None,
            "word_drift_largest_s": round(max(map(abs, self._last)), 3) if self._last else None,
            "word_drift_s_per_audio_hour": _slope(hours, list(self._medians.values())),
        }

    def _end_loop(self) -> None:
        if self._number == 1:
            self._second = self._current
        elif self._number > 1 and (found := _shifts(self._second, self._current)):
            self._last = found
            self._medians[self._number] = float(np.median(found))
        self._current = []


def _shifts(first: Sequence[tuple[str, float]], later: Sequence[tuple[str, float]]) -> list[float]:
    matcher = difflib.SequenceMatcher(None, [word for word, _ in first], [word for word, _ in later], autojunk=False)
    return [
        later[block.b + place][1] - first[block.a + place][1]
        for block in matcher.get_matching_blocks()
        for place in range(block.size)
    ]


def _slope(hours: Sequence[float], values: Sequence[float]) -> float | None:
    """Of a straight line through the values, an hour; None of fewer than three."""
    return round(float(np.polyfit(hours, values, 1)[0]), 4) if len(hours) > 2 else None


def resident_mib() -> float:
    """Memory of this process in MiB (resident); 0 where /proc does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """The most memory this process has held so far in MiB (resident); 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    per_mib = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def report(result: Mapping[str, Any]) -> Report:
    """The page: cost, memory and word times over the hours."""
    rows: Sequence[Mapping[str, Any]] = result["rows"]
    shown = rows[:: max(1, len(rows) // 12)]
    columns = ("audio_h", "ms_per_hop", "cpu_ms_per_hop", "passes_per_hop", "rss_mib", "events", "finals", "load")
    slopes = ("rss_mib_per_audio_hour", "cpu_ms_per_hop_per_audio_hour", "word_drift_s_per_audio_hour")
    ratios = ("ms_per_hop_late_over_early", "cpu_ms_per_hop_late_over_early", "rss_mib_late_over_early")
    shifts = ("word_drift_median_s", "word_drift_largest_s", "words_matched_in_last_loop", "words", "peak_mib")
    return Report(
        name="soak",
        title=f"{result['audio_hours']:.2g} hours of audio at once: `{result['model']}`",
        about=" ".join((__doc__ or "").split("\n\n", 1)[1].split())
        + f" A loop takes {result['loop_s']:.0f} s. Late over early: the last fifth over the second one.",
        result=result,
        tables=(
            Table(
                "From the beginning to the end",
                ("what", "value"),
                [[name, result[name]] for name in (*ratios, *slopes, *shifts)],
            ),
            Table("Every so often", columns, [[row[key] for key in columns] for row in shown]),
        ),
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
