"""Reports of evaluations and studies: JSON for programs, Markdown for people, PNG plots beside them."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.training.extras import evaluation_library

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns. Numbers are shown with three decimals, None as a dash."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot (points only, with names beside them, when it is `scattered`)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    scattered: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: `file` is its name without suffix, beside the report."""

    file: str
    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found. `sections`: heading and a table or a paragraph; `figures`: the same for programs."""

    name: str
    title: str
    figures: Mapping[str, Any]
    sections: tuple[tuple[str, Table | str], ...]
    plots: tuple[Plot, ...] = ()

    def markdown(self) -> str:
        """The whole report in Markdown."""
        parts = [f"# {self.title}"]
        for heading, content in self.sections:
            parts += [f"## {heading}", content.markdown() if isinstance(content, Table) else content]
        parts += [f"![{plot.title}]({plot.file}.png)" for plot in self.plots]
        return "\n\n".join(parts) + "\n"


def write_report(report: Report, folder: Path) -> Path:
    """Write NAME.json, NAME.md and the plots into a folder; the path of the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(report.figures), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _write(folder / f"{report.name}.json", text)
    for plot in report.plots:
        _draw(plot, folder / f"{plot.file}.png")
    path = folder / f"{report.name}.md"
    _write(path, report.markdown())
    return path


def _draw(plot: Plot, path: Path) -> None:
    figure_module = evaluation_library("matplotlib.figure")
    evaluation_library("matplotlib.backends.backend_agg")
    figure = figure_module.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for curve in plot.curves:
        axes.plot(curve.x, curve.y, "o" if curve.scattered else "o-", markersize=4, label=curve.name)
        for x, y, name in zip(curve.x, curve.y, curve.names, strict=False):
            axes.annotate(name, (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.grid(alpha=0.3)
    if len(plot.curves) > 1:
        axes.legend(fontsize=7, ncols=max(1, len(plot.curves) // 14 + 1))
    fresh = path.with_suffix(".part")
    figure.savefig(fresh, format="png", dpi=120)
    os.replace(fresh, path)


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.part")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _shown(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell).replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> Any:
    """Plain JSON types; a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
