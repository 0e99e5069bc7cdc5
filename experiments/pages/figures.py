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
from matplotlib.ticker import MaxNLocator
from scipy.stats import binom


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
WINDOW = 48  # rows and columns of a mask that are shown
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


def kept_per_input(mask: Bool[np.ndarray, "... inputs outputs"]) -> Float[np.ndarray, " inputs"]:
    """The kept fraction of each input's weights, the highest first."""
    return np.sort(mask.reshape(-1, mask.shape[-1]).mean(1))[::-1]


def kept_by_chance(mask: Bool[np.ndarray, "... inputs outputs"]) -> Float[np.ndarray, " inputs"]:
    """What `kept_per_input` would be if as many weights were kept anywhere."""
    inputs, outputs = mask.reshape(-1, mask.shape[-1]).shape
    places = (np.arange(inputs) + 0.5) / inputs
    return binom.ppf(places, outputs, mask.mean())[::-1] / outputs


def mask_maps(masks: dict[str, np.ndarray], look: Look) -> str:
    """Of up to eight layers, first to last, a window of the mask and the profile of its inputs."""
    names = list(masks)
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, 8).round().astype(int))]
    columns = 2 if look.narrow else 4
    rows = -(-len(chosen) // columns)
    figure = Figure((look.width, rows * (1.45 * look.width / columns + 0.5)), layout="constrained")
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=rows * (1, 0.45))
    for place, name in enumerate(chosen):
        row, column = divmod(place, columns)
        window(figure.add_subplot(grid[2 * row, column]), name, masks[name], look)
        profile(figure.add_subplot(grid[2 * row + 1, column]), masks[name], look)
    return draw(figure)


def window(axes: Axes, name: str, mask: Bool[np.ndarray, "... inputs outputs"], look: Look) -> None:
    """The first weights of a layer, each a square, coloured where it is kept."""
    matrix = mask.reshape(-1, mask.shape[-1])
    colours = LinearSegmentedColormap.from_list("kept", [look.ground, look.ours])
    # "none" embeds one pixel per weight: 0.6 MB less than at the picture's resolution.
    shown = matrix[:WINDOW, :WINDOW].astype(float)
    axes.imshow(shown, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="none")
    axes.set_axis_off()
    inputs, outputs = matrix.shape
    label = f"{name.removesuffix('/kernel')}\n{inputs}x{outputs}, {1 - mask.mean():.0%} zeros"
    axes.set_title(label, color=look.text, fontsize=8, loc="left")


def profile(axes: Axes, mask: Bool[np.ndarray, "... inputs outputs"], look: Look) -> None:
    """How much each input keeps, and what chance would have it keep."""
    kept = 100 * kept_per_input(mask)
    axes.fill_between(np.arange(len(kept)), kept, color=look.ours, alpha=0.2, linewidth=0)
    axes.plot(kept, color=look.ours, linewidth=1.4)
    axes.plot(100 * kept_by_chance(mask), color=look.muted, linewidth=1, linestyle=(0, (3, 2)))
    plain_axes(axes, look)
    axes.grid(visible=False, axis="x")
    axes.set_xticks([])
    axes.set_xlim(0, max(1, len(kept) - 1))
    axes.set_ylim(0, 1.1 * max(kept[0], 1e-6))
    axes.tick_params(labelsize=7)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.yaxis.set_major_formatter("{x:.0f} %")


def latency_bars(rows: Sequence[dict[str, Any]], look: Look) -> str:
    """Median CPU times as bars, dense ones in grey, with milliseconds and speed-ups."""
    return draw(latency_axes(rows, look).figure)


def latency_axes(rows: Sequence[dict[str, Any]], look: Look) -> Axes:
    """The axes of `latency_bars`."""
    figure = Figure((look.width, 0.46 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots()
    times = [row["cpu_ms"] for row in rows]
    colours = [look.ours if row["name"].startswith(OURS) else look.plain for row in rows]
    places = np.arange(len(rows))[::-1]
    axes.barh(places, times, height=0.62, color=colours)
    longest = max(times)
    for place, row in zip(places, rows, strict=True):
        inside = row["cpu_ms"] > 0.6 * longest
        axes.text(
            row["cpu_ms"] + (-0.015 if inside else 0.015) * longest,
            place,
            f"{row['cpu_ms']:.2f} ms   {row['cpu_speedup']:.1f}x",
            va="center",
            ha="right" if inside else "left",
            fontsize=9,
            color="#ffffff" if inside and look.text == LIGHT.text else look.text,
        )
    plain_axes(axes, look)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(places, [row["name"] for row in rows], fontsize=9)
    axes.tick_params(axis="y", colors=look.text)
    axes.set_xlabel("CPU milliseconds, median", color=look.muted, fontsize=9)
    return axes
