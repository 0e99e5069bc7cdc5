"""How the weights of each layer are stored: what can hold them, and a model of what is fastest."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.engine.call import STRIP_FLOATS, STRIP_PIXELS, WHOLE_PIXELS
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.patterns import Pattern
from sparsejax.patterns.layout import BLOCKS, COLUMNS, LAYOUTS, MASKS, ROWS, Layout, Storage

BLOCK_ROWS = (1, 2, 4, 8)


class Cost(NamedTuple):
    """Times in ns of one layout on this machine, as `calibrate` fits them.

    Attributes:
        weight: a stored weight, once a strip of pixels.
        pixel: a stored weight at each pixel, in eights.
        place: of any weight, stored or not, at each pixel: rows begin and end in each chunk; of
            mask groups, a column that a group of rows uses.
        activation: a value that is read or written, at each pixel, in eights.
        few: a stored weight where there are at most FEW_PIXELS, which fill one vector.
        alone: a stored weight where there is but one pixel.
    """

    weight: float
    pixel: float
    place: float
    activation: float
    few: float
    alone: float


Costs = Mapping[tuple[Storage, int], Cost]  # of each storage and block
FEW_PIXELS = 16
# Fast from one row on, and within 1.2 of the best for many.
FOR_ROWS = (Layout(ROWS, 8), Layout(BLOCKS, 4), Layout(BLOCKS, 8))
HELD = 1.25  # times the best layout, up to which one that is packed already is taken
WORTH_MEASURING = 1.5  # times the best estimate
WORTH_A_TRIAL = 4.0  # of the best layout of each other family


class Traits(NamedTuple):
    """What the time of a layer depends on.

    Attributes:
        rows, cols: of its matrix; with groups, the columns that a row may use.
        pixels: of one output image, or rows.
        gathers: are its columns copied together first (a window, a stride, a gate)?
        groups: that rows and columns are in; weights are counted within them alone.
        stored: what fraction of the weights groups of 1, 2, 4 and 8 rows keep.
        density: what fraction of the layer's input is not zero on an example, where one is seen.
    """

    rows: int
    cols: int
    pixels: int
    gathers: bool
    groups: int
    stored: tuple[float, ...]
    density: float = 1.0


@dataclass(frozen=True)
class Choice:
    """How a layer's weights are stored, and why.

    Attributes:
        layout: of the packed weights.
        name: "CSR", "2x1", "4x1", "8x1", "mask groups", "dense" or "zeros skipped".
        is_dense: are all weights stored?
        microseconds: what the layer takes for one image, nan when it was not measured.
        break_even: the sparsity from which on the layer is faster than dense, in this pattern.
        reason: for the report.
        estimated: do break_even and reason come from the model, not from a dense layer's time?
    """

    layout: Layout
    name: str
    is_dense: bool
    microseconds: float
    break_even: float
    reason: str
    estimated: bool


def is_product(node: Node) -> bool:
    """Does the node multiply by a packed matrix?"""
    return isinstance(node.op, Layer) and node.op.is_product


def traits_of(node: Node, region: Region, density: float = 1.0) -> Traits:
    """The traits of a product, of whose input so much is not zero."""
    assert isinstance(node.op, Layer)
    matrix = node.op.matrix()
    _, height, width = region.size(node.outputs[0])
    stored = tuple(stored_fraction(matrix, rows) for rows in BLOCK_ROWS)
    sides, groups = (len(matrix), matrix.shape[1], height * width), node.op.num_groups
    return Traits(*sides, node.op.gathers, groups, stored, round(density, 2))


def layer_key(traits: Traits) -> str:
    """What a layer is; sparsity in steps of 1 %."""
    stored = [round(fraction, 2) for fraction in traits.stored]
    density = f"of{traits.density}" if traits.density < 1 else ""
    return f"{list(traits[:-2])}{stored}{density}".replace(" ", "")


def key_of(traits: Traits, layout: Layout) -> str:
    """What a time depends on."""
    return layer_key(traits) + f"{[layout.storage.name.lower(), *layout[1:]]}".replace(" ", "")


def stored_fraction(matrix: np.ndarray, rows: int) -> float:
    """The fraction of weights that is stored when groups of `rows` rows have columns in common."""
    nonzero = matrix != 0
    if rows > 1:
        padded = -(-len(matrix) // rows) * rows
        nonzero = np.concatenate([nonzero, np.zeros((padded - len(matrix), matrix.shape[1]), bool)])
        nonzero = nonzero.reshape(-1, rows, matrix.shape[1]).any(1)
    return float(nonzero.mean()) if nonzero.size else 0.0


def stored(traits: Traits, layout: Layout) -> float:
    """The fraction of weights that a layout keeps."""
    rows = layout.block if layout.storage == BLOCKS else 1
    return traits.stored[BLOCK_ROWS.index(rows)]


def is_dense(traits: Traits, layout: Layout) -> bool:
    """Does the layout keep all weights, as the dense kernel does?"""
    if layout.storage == COLUMNS:
        return True
    return Layout(*layout[:2]) in dense_layouts(traits) and stored(traits, layout) > 0.999


def name_of(traits: Traits, layout: Layout) -> str:
    """What the report calls the layout."""
    if layout.storage == COLUMNS:
        return "zeros skipped"
    if layout.storage == BLOCKS:
        return "dense" if is_dense(traits, layout) else f"{layout.block}x1"
    return "CSR" if layout.storage == ROWS else "mask groups"


def estimate(costs: Costs, traits: Traits, layout: Layout, fraction: float | None = None) -> float:
    """The time of a product in microseconds by the model, with `fraction` of the weights stored."""
    fraction = stored(traits, layout) if fraction is None else fraction
    weights = fraction * traits.rows * traits.cols
    cost = costs[layout.storage, layout.block]
    if traits.pixels <= FEW_PIXELS:
        return weights * (cost.alone if traits.pixels == 1 else cost.few) / 1e3
    return sum(map(operator.mul, work(traits, layout, fraction), cost)) / 1e3


def work(traits: Traits, layout: Layout, fraction: float) -> tuple[float, float, float, float]:
    """How often the first costs count: weights in all strips; these, places, values at all pixels.

    Args:
        traits: of a layer.
        layout: how it is stored.
        fraction: of the weights that are stored.
    """
    places: float = traits.rows * traits.cols
    weights = fraction * places
    if layout.storage == MASKS:
        used = traits.stored[BLOCK_ROWS.index(4)] / max(traits.stored[0], 1e-9)
        places *= min(fraction * used, 1)
    pixels = math.ceil(traits.pixels / 8) * 8
    strips = math.ceil(pixels / max(STRIP_PIXELS, STRIP_FLOATS / max(traits.rows, traits.cols)))
    if pixels <= WHOLE_PIXELS:
        strips = min(2, strips)
    values = traits.rows + traits.cols * traits.groups * (1 + traits.gathers)
    return weights * strips, weights * pixels, places * pixels, values * pixels


def dense_layouts(traits: Traits) -> list[Layout]:
    """Blocks to be filled with all weights, of the heights that groups have room for."""
    high = [Layout(BLOCKS, rows) for rows in (4, 8) if rows <= max(traits.rows, 4)]
    fitting = [layout for layout in (*high, Layout(BLOCKS, 2)) if fits(traits, layout)]
    return [layout for layout in fitting if layout.block > 2] or fitting or [Layout(ROWS, 4)]


def fits(traits: Traits, layout: Layout) -> bool:
    """Do blocks of rows lie within groups?"""
    group_rows = traits.rows // traits.groups
    return traits.groups == 1 or layout.storage == ROWS or group_rows % layout.block == 0


def dense_traits(traits: Traits) -> Traits:
    """Those of a layer of this size without zeros."""
    return traits._replace(stored=(1.0,) * len(BLOCK_ROWS))


def candidates(
    costs: Costs, traits: Traits, pattern: Pattern | None = None, *, rows: bool = False
) -> list[Layout]:
    """The layouts that are worth a measurement: the best of each family first, by the model.

    Args:
        costs: of the machine.
        traits: of the layer.
        pattern: that the weights were trained with, which names layouts of its own.
        rows: only those that serve any number of rows: few and many share the packed weights.
    """
    own = [] if pattern is None else pattern.layouts()
    layouts = list(dict.fromkeys([*own, *LAYOUTS, *dense_layouts(traits)]))
    if traits.stored[0] == 1:  # no zeros to skip
        layouts = dense_layouts(traits)
    layouts = [y for y in layouts if fits(traits, y) and (y in FOR_ROWS or not rows)]
    times = {layout: estimate(costs, traits, layout) for layout in layouts}
    layouts.sort(key=times.__getitem__)
    best = max(times[layouts[0]], 1e-9)
    families: dict[object, Layout] = {}
    for layout in layouts:
        families.setdefault((layout.storage, is_dense(traits, layout)), layout)
    firsts = [layout for layout in families.values() if times[layout] <= WORTH_A_TRIAL * best]
    named = sorted(set(own) & set(layouts), key=times.__getitem__)[:1]
    rest = [layout for layout in layouts if times[layout] <= WORTH_MEASURING * best]
    return list(dict.fromkeys([*firsts[:1], *named, *firsts, *rest]))


def choose(
    costs: Costs,
    traits: Traits,
    layouts: Sequence[Layout],
    micros: Mapping[Layout, float],
    dense: float,
    held: Layout | None = None,
) -> Choice:
    """The fastest layout, or one that is about as fast and packed, and how it stands to dense.

    Args:
        costs: of the machine.
        traits: of the layer.
        layouts: to choose from where none was measured.
        micros: what was measured.
        dense: the time of a dense layer of this size, nan where it was not measured.
        held: a layout that another number of rows has packed.
    """
    modelled = (layout for layout in layouts if layout.storage != COLUMNS)
    times = micros or {layout: estimate(costs, traits, layout) for layout in modelled}
    layout = min(times, key=times.__getitem__)
    if held is not None and times.get(held, math.inf) <= HELD * times[layout]:
        layout = held
    full, took = is_dense(traits, layout), times[layout]
    guessed = full or not micros or math.isnan(dense)
    if full:
        dense = took
    elif guessed:  # both by the model
        full_layout = min(dense_layouts(traits), key=lambda each: estimate(costs, traits, each, 1))
        dense, took = estimate(costs, traits, full_layout, 1), estimate(costs, traits, layout)
    curve = (Layout(ROWS, 2), dense) if full else (layout, dense, took)
    even = break_even(costs, traits, *curve)
    ratio = f"{'about ' * guessed}{took / max(dense, 1e-9):.2f} of dense time"
    zeros = f"{1 - traits.stored[0]:.1%} zeros"
    none = "no zeros"
    if layout.storage == COLUMNS:
        none += f" but those of its input, {1 - traits.density:.0%}"
    reason = f"{zeros}: {'dense is faster' if full else ratio}"
    return Choice(
        layout,
        name_of(traits, layout),
        full,
        micros.get(layout, math.nan),
        even,
        none if traits.stored[0] == 1 else reason,
        guessed,
    )


def break_even(
    costs: Costs, traits: Traits, layout: Layout, dense: float, took: float | None = None
) -> float:
    """The sparsity at which a layout takes as long as the dense layer does; 1 if none does.

    On the line from what it takes now (or, by the model, without weights) to what it would take
    with all of them, which the model says in parts of the dense layer's time.

    Args:
        costs: of the machine.
        traits: of the layer.
        layout: how it is stored.
        dense: the time of a dense layer.
        took: that of the layer, None where the model says that, too.
    """
    model = min(estimate(costs, traits, each, 1) for each in dense_layouts(traits))
    part = lambda fraction: estimate(costs, traits, layout, fraction) / max(model, 1e-9) * dense
    now, took = (0.0, part(0.0)) if took is None else (stored(traits, layout), took)
    every = part(1.0)
    if every <= max(dense, took):
        return 0.0 if took <= dense else 1.0
    meets = now + (dense - took) * (1 - now) / (every - took)
    return float(np.clip(1 - meets, 0.0, 1.0))
