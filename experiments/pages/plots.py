"""Pictures of the records: lines of accuracy against sparsity, or a dot for each row."""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.runs.table import Paper, Results, Row
from experiments.runs.verdicts import standing

MARKERS = "osD^vP*X<>hd"
NUMBER: dict[str, Any] = {
    "xytext": (6, 0),
    "textcoords": "offset points",
    "fontsize": "x-small",
    "va": "center",
}


class Point(NamedTuple):
    """A row in a picture: counted sparsity, mean and spread of the headline."""

    sparsity: float
    mean: float
    spread: float


def series(row: Row) -> str:
    """What connects the points of a row: its name without the percentage at its end."""
    return re.sub(r",?\s*[\d.]+ ?%$", "", row.name)


def point(row: Row, results: Results) -> Point | None:
    """The row's point, or None without records or without a sparsity."""
    records = results.records[row.name]
    if not records or "sparsity" not in records[0]["result"] or row.setting.headline != "accuracy":
        return None
    values, _ = standing(row.name, None, results)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Point(results.mean(row.name, "sparsity"), statistics.fmean(values), spread)


def paper(file: Path, source: Paper, results: Results) -> bool:
    """Draw what there is of a paper's table; False if there is nothing.

    Lines need a method at several sparsities; else a dot for each row says more.
    """
    lines: dict[str, list[Point]] = {}
    for row in source.ROWS:
        found = point(row, results)
        if found is not None:
            lines.setdefault(series(row), []).append(found)
    if any(len({point.sparsity for point in points}) > 1 for points in lines.values()):
        accuracy_against_sparsity(file, source.TITLE, lines)
        return True
    measured = [row for row in source.ROWS if results.records[row.name]]
    if measured:
        dots(file, source.TITLE, measured, results)
    return bool(measured)


def accuracy_against_sparsity(file: Path, title: str, lines: Mapping[str, Sequence[Point]]) -> None:
    """A line per method, the best one first in the legend; dense is a level.

    The horizontal axis is logarithmic in the density. Collapsed points, of seeds below half of the
    best accuracy, would take the room of the others: the legend has them.
    """
    points = [point for line in lines.values() for point in line]
    half = max(point.mean for point in points) / 2
    lows = [point.mean - point.spread for point in points]
    bottom = 100 * min((low for low in lows if low >= half), default=half) - 1.5
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    ranked = sorted(lines, key=lambda name: (min(lines[name]).sparsity > 0, -max(lines[name]).mean))
    colors = matplotlib.colormaps["tab10" if len(lines) <= 11 else "tab20"].colors
    for index, name in enumerate(ranked):
        _line(axes, name, sorted(lines[name]), bottom, index, colors[index % len(colors)])
    at = sorted({round(point.sparsity, 2) for point in points if point.sparsity > 0})
    axes.set_xlim(0.8 / (1 - at[0]), 1.25 / (1 - at[-1]))
    axes.set_ylim(bottom=bottom)
    axes.set_xscale("log")
    axes.set_xticks([1 / (1 - t) for t in at], [f"{100 * t:g}" for t in at])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("sparsity of the pruned leaves, % (log of the density)")
    axes.set_ylabel("test accuracy, %")
    legend_rows = "\n".join(axes.get_legend_handles_labels()[1]).count("\n") + 1
    figure.set_size_inches(8, max(4.2, 0.19 * legend_rows))
    figure.legend(fontsize="small", loc="outside right upper")
    _save(figure, file, title)


def _line(
    axes: Axes, name: str, points: Sequence[Point], bottom: float, index: int, color: Any
) -> None:
    """The points of a method that are above the bottom; the others in its label."""
    if points[-1].sparsity == 0:
        axes.axhline(100 * points[-1].mean, color="gray", linestyle="--", label=name)
        return
    shown = [p for p in points if 100 * p.mean > bottom]
    below = [f"{100 * p.mean:.0f} % at {100 * p.sparsity:.0f} %" for p in points if p not in shown]
    axes.errorbar(
        [1 / (1 - p.sparsity) for p in shown],
        [100 * p.mean for p in shown],
        [100 * p.spread for p in shown],
        marker=MARKERS[index % len(MARKERS)],
        capsize=2,
        markersize=4,
        linewidth=1,
        color=color,
        label=f"{name}\n({', '.join(below)})" if below else name,
    )


def dots(file: Path, title: str, rows: Sequence[Row], results: Results) -> None:
    """A dot and its number per row, with the spread over the seeds; a panel per headline."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(row.setting.headline, []).append(row)
    figure = Figure(figsize=(8, len(panels) + 0.22 * len(rows)), layout="constrained")
    shares = [len(panel) + 2 for panel in panels.values()]
    all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=shares)[:, 0]
    for axes, (headline, panel) in zip(all_axes, panels.items(), strict=True):
        names = [row.name for row in panel]
        means = [results.mean(name) for name in names]
        spreads = [results.spread(name) or 0.0 for name in names]
        axes.errorbar(means, names, xerr=spreads, fmt="o", markersize=4, capsize=2)
        for mean, name in zip(means, names, strict=True):
            axes.annotate(f"{mean:.3g}", (mean, name), **NUMBER)
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.set_xlabel(headline)
    _save(figure, file, title)


def _save(figure: Figure, file: Path, title: str) -> None:
    figure.axes[0].set_title(title, fontsize="medium")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    # Text as text and a fixed salt: small files that differ only where the numbers do.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparsejax"}):
        figure.savefig(file, metadata={"Date": None})
