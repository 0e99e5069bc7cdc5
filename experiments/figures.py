"""The report's pictures as SVG text, each drawable light or dark, wide or narrow."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure


class Look(NamedTuple):
    """Colours of a theme and the width of the picture in inches."""

    text: str
    muted: str
    grid: str
    plain: str
    ours: str
    ground: str
    width: float

    @property
    def narrow(self) -> bool:
        """Is it for a phone?"""
        return self.width < 5


LIGHT = Look("#1b2130", "#667085", "#e4e7ec", "#98a2b3", "#0d7a6f", "#f2f4f7", 7.6)
DARK = Look("#e8eaf0", "#98a2b3", "#2c3340", "#667085", "#3fd0b6", "#1c212b", 7.6)
NARROW = 4.0
OURS = ("accelerate", "compile")  # how the names of our own ways begin


def draw(figure: Figure) -> str:
    """The figure as SVG with a transparent ground; equal figures give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "sparsejax"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def plain_axes(axes: Axes, look: Look) -> None:
    """No frame but a light grid; text in the theme's colours."""
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=look.muted, length=0, labelsize=9)
    axes.grid(color=look.grid, linewidth=0.8)
    axes.patch.set_visible(False)


def title(axes: Axes, look: Look, text: str) -> None:
    axes.set_title(text, loc="left", color=look.text, fontsize=10, pad=8)


def curves(dense: Sequence[dict], sparse: Sequence[dict], look: Look) -> str:
    """Test accuracy of both trainings over sparsity of the sparse one, by step."""
    figure = Figure((look.width, 4.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    for history, name, colour in ((dense, "dense", look.plain), (sparse, "sparse", look.ours)):
        steps = [entry["step"] for entry in history]
        accuracy = [100 * entry["test_accuracy"] for entry in history]
        top.plot(steps, accuracy, color=colour, linewidth=2.2, marker="o", markersize=4, label=name)
    # The first measurements are far below: the axis shows where the two are to be told apart.
    ends = [100 * history[-1]["test_accuracy"] for history in (dense, sparse)]
    if len(dense) > 4:
        top.set_ylim(max(0, min(ends) - 30), min(100, max(ends) + 4))
    title(top, look, "Test accuracy, %")
    legend = top.legend(frameon=False, loc="lower right", fontsize=10)
    for text in legend.get_texts():
        text.set_color(look.text)
    steps = [entry["step"] for entry in sparse]
    sparsity = [100 * entry["sparsity"] for entry in sparse]
    bottom.plot(steps, sparsity, color=look.ours, linewidth=2.2)
    bottom.fill_between(steps, sparsity, color=look.ours, alpha=0.15)
    bottom.set_ylim(0, 100)
    title(bottom, look, "Zeros in the 1x1 convolutions, %")
    bottom.set_xlabel("training step", color=look.muted, fontsize=9)
    for axes in (top, bottom):
        plain_axes(axes, look)
    return draw(figure)


def density(
    mask: Bool[np.ndarray, "... inputs outputs"], cells: int = 64
) -> Float[np.ndarray, "r c"]:
    """The kept fraction of each cell when the mask is cut into at most cells x cells."""
    matrix = mask.reshape(-1, mask.shape[-1]).astype(np.float64)
    for axis in (0, 1):
        parts = np.array_split(np.arange(matrix.shape[axis]), min(cells, matrix.shape[axis]))
        rows = [matrix.take(part, axis).mean(axis) for part in parts]
        matrix = np.stack(rows, axis)
    return matrix


def mask_maps(masks: dict[str, np.ndarray], look: Look) -> str:
    """Heat maps of where the kept weights of up to eight layers are, first to last."""
    names = list(masks)
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, 8).round().astype(int))]
    columns = 2 if look.narrow else 4
    rows = -(-len(chosen) // columns)
    figure = Figure((look.width, rows * (look.width / columns + 0.42)), layout="constrained")
    colours = LinearSegmentedColormap.from_list("kept", [look.ground, look.ours])
    axes_of_all = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in axes_of_all:
        axes.set_axis_off()
    for axes, name in zip(axes_of_all, chosen, strict=False):
        mask = np.asarray(masks[name])
        cells = density(mask)
        # "none" embeds one pixel per cell: 0.6 MB less than at the picture's resolution.
        axes.imshow(
            cells,
            cmap=colours,
            vmin=0,
            vmax=max(cells.max(), 1e-6),
            aspect="auto",
            interpolation="none",
        )
        inputs, outputs = mask.reshape(-1, mask.shape[-1]).shape
        label = f"{name.removesuffix('/kernel')}\n{inputs}x{outputs}, {1 - mask.mean():.1%} zeros"
        axes.set_title(label, color=look.text, fontsize=8, loc="left")
    return draw(figure)


def latency_bars(rows: Sequence[dict[str, Any]], look: Look) -> str:
    """Median times as bars, dense ones in grey, with milliseconds and speed-ups."""
    figure = Figure((look.width, 0.46 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots()
    times = [row["wall_ms"] for row in rows]
    colours = [look.ours if row["name"].startswith(OURS) else look.plain for row in rows]
    places = np.arange(len(rows))[::-1]
    axes.barh(places, times, height=0.62, color=colours)
    longest = max(times)
    for place, row in zip(places, rows, strict=True):
        inside = row["wall_ms"] > 0.6 * longest
        axes.text(
            row["wall_ms"] + (-0.015 if inside else 0.015) * longest,
            place,
            f"{row['wall_ms']:.2f} ms   {row['wall_speedup']:.1f}x",
            va="center",
            ha="right" if inside else "left",
            fontsize=9,
            color="#ffffff" if inside and look.text == LIGHT.text else look.text,
        )
    plain_axes(axes, look)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(places, [row["name"] for row in rows], fontsize=9)
    axes.tick_params(axis="y", colors=look.text)
    axes.set_xlabel("milliseconds, median", color=look.muted, fontsize=9)
    return draw(figure)
