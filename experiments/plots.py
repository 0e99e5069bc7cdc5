"""Pictures of the records: accuracy against sparsity, or bars where rows have no sparsity."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.table import Paper, Results, Row

MARKERS = "osD^vP*X<>hd"


class Point(NamedTuple):
    """A row in a picture: counted sparsity, mean and spread of the headline."""

    sparsity: float
    mean: float
    spread: float


def series(row: Row) -> str:
    """What connects the points of a row: its name without the percentage at its end."""
    return re.sub(r"\s*[\d.]+ ?%$", "", row.name)


def point(row: Row, results: Results) -> Point | None:
    """The row's point, or None without records or without a sparsity."""
    records = results.records[row.name]
    if not records or "sparsity" not in records[0]["result"] or row.setting.headline != "accuracy":
        return None
    spread = results.spread(row.name) or 0.0
    return Point(results.mean(row.name, "sparsity"), results.mean(row.name), spread)


def paper(file: Path, source: Paper, results: Results) -> bool:
    """Draw what there is of a paper's table; False if there is nothing."""
    lines: dict[str, list[Point]] = {}
    for row in source.ROWS:
        found = point(row, results)
        if found is not None:
            lines.setdefault(series(row), []).append(found)
    if any(p.sparsity > 0 for points in lines.values() for p in points):
        accuracy_against_sparsity(file, source.TITLE, lines)
        return True
    measured = [row for row in source.ROWS if results.records[row.name]]
    if measured:
        bars(file, source.TITLE, measured, results)
    return bool(measured)


def accuracy_against_sparsity(file: Path, title: str, lines: Mapping[str, Sequence[Point]]) -> None:
    """A line per method; the horizontal axis is logarithmic in the density, dense is a level."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    ticks = set()
    for index, (name, points) in enumerate(sorted(lines.items())):
        points = sorted(points)
        if points[-1].sparsity == 0:
            axes.axhline(100 * points[-1].mean, color="gray", linestyle="--", label=name)
            continue
        ticks |= {round(p.sparsity, 2) for p in points}
        axes.errorbar(
            [1 / (1 - p.sparsity) for p in points],
            [100 * p.mean for p in points],
            [100 * p.spread for p in points],
            marker=MARKERS[index % len(MARKERS)],
            capsize=2,
            markersize=4,
            linewidth=1,
            label=name,
        )
    at = sorted(ticks)
    axes.set_xlim(0.8 / (1 - at[0]), 1.25 / (1 - at[-1]))
    axes.set_xscale("log")
    axes.set_xticks([1 / (1 - t) for t in at], [f"{100 * t:g} %" for t in at])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("sparsity of the pruned leaves (log of the density)")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize="small", ncols=2)
    _save(figure, axes, file, title)


def bars(file: Path, title: str, rows: Sequence[Row], results: Results) -> None:
    """A bar per row, with the spread over the seeds."""
    figure = Figure(figsize=(7, 0.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [row.name for row in rows]
    means, spreads = (
        [results.mean(name) for name in names],
        [results.spread(name) or 0.0 for name in names],
    )
    axes.barh(names, means, xerr=spreads, height=0.6)
    axes.invert_yaxis()
    axes.set_xlabel(", ".join(sorted({row.setting.headline for row in rows})))
    _save(figure, axes, file, title)


def _save(figure: Figure, axes: Axes, file: Path, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    # Text as text and a fixed salt: small files that differ only where the numbers do.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparsejax"}):
        figure.savefig(file, metadata={"Date": None})
