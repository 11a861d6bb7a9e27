"""Where the findings of benches and evaluations go: JSON, a Markdown page with tables, and a plot, in one folder.

A page says what it was measured on: the machine, its load, and the versions of what matters.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from streamer.errors import UsageError

Draw = Callable[[Any], None]  # draws on a matplotlib Figure


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a document; cells are written as `cell` does."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def markdown(self) -> str:
        """The table in Markdown, its caption above it."""
        lines = [self.caption, "", _line(self.header), _line(["---"] * len(self.header))]
        return "\n".join([*lines, *(_line([cell(value) for value in row]) for row in self.rows)]) + "\n"


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot (points only, with names beside them, when it is `scattered`)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    scattered: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `result`: plain values, perhaps with `machine` from `machine_facts`; `draw` None: no plot."""

    name: str
    title: str
    about: str
    result: Mapping[str, Any]
    tables: Sequence[Table]
    draw: Draw | None = None

    def markdown(self) -> str:
        """The page."""
        parts = [f"## {self.title}", self.about]
        parts += [_sentence(self.result["machine"])] if "machine" in self.result else []
        return "\n\n".join(part for part in (*parts, *(table.markdown() for table in self.tables)) if part)

    def brief(self) -> str:
        """Title and first table."""
        return "\n\n".join([f"## {self.title}", *(table.markdown() for table in self.tables[:1])])


def publish(report: Report, folder: Path) -> list[Path]:
    """Write `NAME.json`, `NAME.md` and `NAME.png` into `folder`; their paths. Raises UsageError where that fails."""
    paths = [folder / f"{report.name}.json", folder / f"{report.name}.md"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(as_json(report.result), encoding="utf-8")
        paths[1].write_text(report.markdown(), encoding="utf-8")
        if report.draw is not None:
            paths.append(folder / f"{report.name}.png")
            _plot(report.draw, paths[-1])
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.strerror}") from None
    return paths


def write_into(report: Report, page: Path) -> None:
    """Put the report in the place of the section with its title in a Markdown page, or behind the last one.

    A section reaches to the next heading of its own depth. Raises UsageError where the page cannot be read or written.
    """
    try:
        lines = page.read_text(encoding="utf-8").splitlines()
        heads = [place for place, line in enumerate(lines) if line.startswith("## ")]
        begin = next((place for place in heads if lines[place] == f"## {report.title}"), len(lines))
        end = next((place for place in heads if place > begin), len(lines))
        parts = ["\n".join(lines[:begin]).rstrip(), report.markdown().rstrip(), "\n".join(lines[end:]).strip()]
        page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--page {page}: cannot be read and written: {reason}") from None


def as_json(result: Mapping[str, Any]) -> str:
    """One JSON object, indented, with a line end; a number that is none becomes null."""
    return json.dumps(_plain(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def cell(value: object) -> str:
    """A value as people read it: three significant digits, a dash for what there is not."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def draw_curves(axes: Any, curves: Sequence[Curve], *, title: str, x: str, y: str) -> None:
    """Curves on one pair of axes of a matplotlib Figure."""
    for curve in curves:
        axes.plot(curve.x, curve.y, "o" if curve.scattered else "o-", markersize=4, label=curve.name)
        for at_x, at_y, name in zip(curve.x, curve.y, curve.names, strict=False):
            axes.annotate(name, (at_x, at_y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=7, ncols=max(1, len(curves) // 14 + 1))


def evaluation_library(name: str) -> Any:
    """A module of scikit-learn, scipy, jiwer, matplotlib or onnx. Raises UsageError that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        module = name.partition(".")[0]
        package = "scikit-learn" if module == "sklearn" else module
        raise UsageError(f"{package} is needed here: pip install '.[eval]' in Streamer's folder ({error})") from error


def _plot(draw: Draw, path: Path) -> None:
    backend = evaluation_library("matplotlib.backends.backend_agg")
    figure = evaluation_library("matplotlib.figure").Figure(figsize=(8, 4.5), layout="constrained")
    backend.FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(path, dpi=120)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _sentence(machine: Mapping[str, Any]) -> str:
    """The machine in one line of a document, with a word on its load."""
    one, five, _ = machine["load_1_5_15_min"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    busy = "a quiet machine" if one < 0.6 else "a LOADED machine: other programs had a share of its cores"
    threads = "" if machine["threads"] is None else f"{machine['threads']} threads in use; "
    device = f"{machine['device']}; " if machine.get("device") else ""
    return (
        f"{machine['date']}; {device}{machine['processor']} ({', '.join(machine['flags'])}), {machine['cores']} cores, "
        f"{threads}load average before the run {one} (1 min), {five} (5 min): "
        f"{busy}; {versions}."
    )
