"""The page of `streamer bench speech`: all recordings, each set, what was written where nobody speaks, a plot."""

from collections.abc import Mapping, Sequence
from typing import Any

from streamer.bench.speech import OFFLINE
from streamer.measure.report import Report, Table

LATE = ("commit p50", "commit p95", "first p50", "first p95")
ALL = ("listener", "WER %", "over offline", "substituted", "lost", "invented", "as written %", *LATE, "erasure")
REST = (
    "listener",
    "recordings",
    "s",
    "words",
    "timed words",
    "retractions",
    "unseen",
    "segments",
    "finals",
    "processor s/s",
)
SET = ("set", "listener", "words", "WER %", "over offline", "lost", "invented", "as written %", *LATE, "unseen")
QUIET = ("set", "listener", "recordings", "minutes", "words invented", "a minute")
REAL = ("listener", *LATE)


def report(result: Mapping[str, Any]) -> Report:
    """The report of what `speech.measure` found; `Report.brief` is its first table."""
    listeners: Mapping[str, Any] = result["listeners"]
    spoken = [name for name, found in listeners.items() if found["all"]["words"]]
    tables = []
    if spoken:
        every = {name: listeners[name]["all"] for name in spoken}
        first = every[spoken[0]]
        caption = f"{first['recordings']} recordings with speech, {first['seconds']:.0f} s, {first['words']} words"
        tables += [
            Table(caption, ALL, [_all_row(name, row) for name, row in every.items()]),
            Table("The same, counts and cost", REST, [_rest_row(name, row) for name, row in every.items()]),
        ]
        if result["paced_s"]:
            rows = [[name, *_late(row, "real_")] for name, row in every.items() if row["real_commit_p50_s"] is not None]
            tables.append(Table(f"Played live, {result['paced_s']:g} s of each: seconds by the clock", REAL, rows))
        tables.append(Table("Set by set", SET, _set_rows(listeners)))
    quiet = _quiet_rows(listeners)
    if quiet:
        tables.append(Table("Words written where nobody speaks", QUIET, quiet))
    return Report(
        name="speech",
        title=f"Recordings: `{result['model']}`",
        about=_about(result),
        result=result,
        tables=tables,
        draw=(lambda figure: _draw(figure, listeners)) if spoken else None,
    )


def _about(result: Mapping[str, Any]) -> str:
    absent = f" Left out: the streaming peer, {result['absent']}." if result["absent"] else ""
    return (
        f"Streamed with head {result['head'] or 'none'} in {result['dtype']}, against openai-whisper's `transcribe` of "
        "the whole recording on the same weights in float32. Errors on texts made comparable by whisper's normalisers; "
        "`as written`: with case and punctuation. Latencies in seconds of audio from the end of each word that was "
        f"heard right (times by `{result['words_timed_by']}`, offline, or the scene's own). Erasure: words withdrawn "
        "from the captions for each word said. Unseen: recordings that offline reads with less than half of the words "
        f"wrong and of which nothing was committed.{absent}"
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"


def _points(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:+.1f}"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _late(row: Mapping[str, Any], clock: str = "") -> list[str | None]:
    return [_seconds(row[f"{clock}{what}_p{share}_s"]) for what in ("commit", "first") for share in (50, 95)]


def _over(name: str, row: Mapping[str, Any]) -> str | None:
    return None if name == OFFLINE else _points(row["over_offline"])


def _all_row(name: str, row: Mapping[str, Any]) -> list[object]:
    counts = [row["substituted"], row["lost"], row["invented"]]
    erasure = None if name == OFFLINE else _seconds(row["erasure"])
    return [
        name,
        _percent(row["wer"]),
        _over(name, row),
        *counts,
        _percent(row["wer_as_written"]),
        *_late(row),
        erasure,
    ]


def _rest_row(name: str, row: Mapping[str, Any]) -> list[object]:
    sizes = [row["recordings"], row["seconds"], row["words"]]
    stream = ["timed_words", "retractions", "unseen", "segments", "finals"]
    return [
        name,
        *sizes,
        *(None if name == OFFLINE else row[key] for key in stream),
        _seconds(row["processor_s_per_s"]),
    ]


def _set_rows(listeners: Mapping[str, Any]) -> list[list[object]]:
    names = {part: None for found in listeners.values() for part, row in found["sets"].items() if row["words"]}
    rows: list[list[object]] = []
    for part in names:
        for name, found in listeners.items():
            row = found["sets"][part]
            rates = [
                _percent(row["wer"]),
                _over(name, row),
                row["lost"],
                row["invented"],
                _percent(row["wer_as_written"]),
            ]
            unseen = None if name == OFFLINE else row["unseen"]
            rows.append([part, name, row["words"], *rates, *_late(row), unseen])
    return rows


def _quiet_rows(listeners: Mapping[str, Any]) -> list[list[object]]:
    """All quiet recordings, then the sets on which something was written."""
    every = {name: found["all"] for name, found in listeners.items() if found["all"]["quiet_recordings"]}
    rows = [_quiet_row("all", name, row) for name, row in every.items()]
    parts = {part: None for name in every for part, row in listeners[name]["sets"].items() if row["invented_in_quiet"]}
    rows += [_quiet_row(part, name, listeners[name]["sets"][part]) for part in parts for name in every]
    return rows


def _quiet_row(part: str, name: str, row: Mapping[str, Any]) -> list[object]:
    minutes = f"{row['quiet_seconds'] / 60:.1f}"
    return [
        part,
        name,
        row["quiet_recordings"],
        minutes,
        row["invented_in_quiet"],
        _seconds(row["invented_per_minute"]),
    ]


def _draw(figure: Any, listeners: Mapping[str, Any]) -> None:
    parts = list({part: None for found in listeners.values() for part, row in found["sets"].items() if row["words"]})
    errors, late = figure.subplots(1, 2, width_ratios=(3, 2))
    width = 0.8 / len(listeners)
    for index, (name, found) in enumerate(listeners.items()):
        places = [place + index * width for place in range(len(parts))]
        errors.bar(places, [100 * (found["sets"][part]["wer"] or 0) for part in parts], width, label=name)
    errors.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(parts))], parts, rotation=30, ha="right", fontsize=7
    )
    errors.set(ylabel="word error rate, %")
    errors.legend(fontsize=7)
    live = {name: found["all"] for name, found in listeners.items() if found["all"]["commit_p50_s"] is not None}
    _draw_late(late, live)


def _draw_late(axes: Any, live: Mapping[str, Mapping[str, Any]]) -> None:
    keys = [f"{what}_p{share}_s" for what in ("commit", "first") for share in (50, 95)]
    width = 0.8 / max(1, len(live))
    for index, (name, row) in enumerate(live.items()):
        axes.bar([place + index * width for place in range(len(keys))], [row[key] for key in keys], width, label=name)
    middles: Sequence[float] = [place + 0.4 - width / 2 for place in range(len(keys))]
    axes.set_xticks(middles, LATE, rotation=30, ha="right", fontsize=7)
    axes.set(ylabel="seconds after the word's end")
    if live:
        axes.legend(fontsize=7)
