"""Measures the layouts of every distinct layer where it will run, and remembers the times."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.layouts import calibrate
from sparsejax.compiler.layouts.profile import profile
from sparsejax.compiler.layouts.select import (
    FEW_PIXELS,
    Choice,
    Costs,
    Traits,
    candidates,
    choose,
    dense_layouts,
    dense_traits,
    estimate,
    is_product,
    key_of,
    layer_key,
    traits_of,
)
from sparsejax.compiler.layouts.times import SHORTEST, UNKNOWN, Sample, read_cache, write_cache
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.patterns import Pattern
from sparsejax.patterns.layout import Layout
from sparsejax.patterns.stacked import array_of
from sparsejax.plans.plan import Plan

BUDGET_SECONDS = 4.0  # of CPU time to measure for one compile; later ones go on
MOST_MEASURED = 3  # how often the two fastest layouts are, once or twice a compile
# What the fastest layout is tried with, too, one after the other.
VARIATIONS: dict[str, tuple[int, ...]] = {"tile": (1, 2, 4, 7), "chunk_cols": (64, 128, 256)}


@dataclass
class Chooser:
    """How the products of a function's regions are stored: by measurement, or by the model alone.

    Attributes:
        plan: that the weights were trained with, or None.
        measure: measure rather than estimate?
        spent: CPU seconds that went into measuring.
        num_left: layouts that are worth a measurement and got none.
        micros: the time of every node of the regions that were measured, of one image.
        keys: what each of these nodes is, however it is stored.
    """

    plan: Plan | None
    measure: bool
    spent: float = 0.0
    num_left: int = 0
    micros: dict[Node, float] = field(default_factory=dict)
    keys: dict[Node, str] = field(default_factory=dict)

    def __call__(self, region: Region) -> dict[Node, Choice]:
        """A choice for each product of a region."""
        costs = calibrate.costs()
        layers = distinct(region, self.plan, costs)
        times = read_cache() if self.measure else {}
        if self.measure:
            self._measure(region, layers, costs, times)
        return {node: layer.choice(costs, times) for layer in layers for node in layer.nodes}

    def _measure(
        self, region: Region, layers: "list[_Layer]", costs: Costs, times: dict[str, Sample]
    ) -> None:
        """Measure what is missing, the likeliest first, and note the times of all nodes."""
        trials = _Trials(region, times)
        start = time.thread_time() - self.spent
        for number, trial in enumerate(_rounds(layers, costs, times)):
            if number and self.spent > BUDGET_SECONDS:  # the first is of the best estimates
                self.num_left += sum(len(layer.missing(times)) for layer in layers)
                break
            trials.run(trial)
            self.spent = time.thread_time() - start
        for layer in layers:
            choice = layer.choice(costs, times)
            self.micros |= dict.fromkeys(layer.nodes, choice.microseconds)
            self.keys |= dict.fromkeys(layer.nodes, layer_key(layer.traits))
        for node in region.nodes:
            if not is_product(node):
                self.keys[node] = described(node, region)
                self.micros[node] = times.get(self.keys[node], _NO_TIME).micros


@dataclass(eq=False)
class _Layer:
    """The equal products of a region, which are measured as one.

    Attributes:
        traits: of each.
        full: of such a layer without zeros.
        layouts: to choose from.
        nodes: the products.
    """

    traits: Traits
    full: Traits
    layouts: list[Layout]
    nodes: list[Node] = field(default_factory=list)

    def key(self, layout: Layout) -> str:
        return key_of(self.traits, layout)

    def missing(self, times: Mapping[str, Sample]) -> list[Layout]:
        return [layout for layout in self.layouts if self.key(layout) not in times]

    def measured(self, times: Mapping[str, Sample]) -> list[Layout]:
        """What was measured, the fastest first."""
        known = [layout for layout in self.layouts if self.key(layout) in times]
        return sorted(known, key=lambda layout: times[self.key(layout)])

    def dense(self, costs: Costs) -> Layout:
        """The layout of a dense layer of this size."""
        time_of = lambda layout: estimate(costs, self.traits, layout, 1)
        return min(dense_layouts(self.traits), key=time_of)

    def choice(self, costs: Costs, times: Mapping[str, Sample]) -> Choice:
        micros = {layout: times[self.key(layout)].micros for layout in self.measured(times)}
        dense = times.get(self.dense_key(costs), _NO_TIME).micros
        return choose(costs, self.traits, self.layouts, micros, dense)

    def dense_key(self, costs: Costs) -> str:
        return key_of(self.full, self.dense(costs))


_NO_TIME = Sample(math.nan, 0)


def distinct(region: Region, plan: Plan | None, costs: Costs) -> list[_Layer]:
    """The products of a region, equal ones together."""
    layers: dict[tuple, _Layer] = {}
    for node in filter(is_product, region.nodes):
        traits = traits_of(node, region)
        layouts = candidates(costs, traits, _pattern(plan, node))
        key = (layer_key(traits), tuple(layouts))
        layers.setdefault(key, _Layer(traits, _full(node, region, traits), layouts))
        layers[key].nodes.append(node)
    return list(layers.values())


def _full(node: Node, region: Region, traits: Traits) -> Traits:
    """The traits of the layer without zeros, but for those between groups of channels."""
    assert isinstance(node.op, Layer)
    return dense_traits(traits) if node.op.num_groups == 1 else traits_of(_filled(node), region)


def _pattern(plan: Plan | None, node: Node) -> Pattern | None:
    """The pattern of the layer's leaf, which may be a turn of a loop over a stack."""
    if plan is None:
        return None
    assert isinstance(node.op, Layer)
    leaves = plan.slices(node.op.path) or plan.slices(array_of(node.op.path))
    return leaves[0].pattern if leaves else None


@dataclass
class _Trial:
    """One run of the region: a layout for each product, and which of them are filled up."""

    layouts: dict[Node, Layout]
    keys: dict[Node, str]
    dense: bool = False


def _rounds(layers: list[_Layer], costs: Costs, times: Mapping[str, Sample]) -> Iterator[_Trial]:
    """The trials in the order of their worth, each decided when those before it have run."""
    yield from _missing(layers, times)
    if any(layer.dense_key(costs) not in times for layer in layers):
        yield _dense(layers, costs)
    for name, values in VARIATIONS.items():
        for layer in layers:
            if layer.traits.pixels > FEW_PIXELS:  # of few the engine knows what to take
                best = layer.measured(times)[0]
                varied = [best._replace(**{name: each}) for each in values]  # type: ignore[arg-type]
                layer.layouts = list(dict.fromkeys([*layer.layouts, *varied]))
        yield from _missing(layers, times)
    for place in (0, 1):
        fastest = [layer.measured(times)[: place + 1][-1] for layer in layers]
        counts = [times[a.key(b)].repeats for a, b in zip(layers, fastest, strict=True)]
        if min(counts, default=MOST_MEASURED) < MOST_MEASURED:
            yield _trial({layer: [best] for layer, best in zip(layers, fastest, strict=True)})


def _missing(layers: list[_Layer], times: Mapping[str, Sample]) -> Iterator[_Trial]:
    """Trials until all layouts are measured; of equal layers each has another one."""
    while any(layer.missing(times) for layer in layers):
        yield _trial({layer: layer.missing(times) or layer.measured(times) for layer in layers})


def _trial(wanted: "Mapping[_Layer, list[Layout]]") -> _Trial:
    trial = _Trial({}, {})
    for layer, layouts in wanted.items():
        for number, node in enumerate(layer.nodes):
            layout = layouts[min(number, len(layouts) - 1)]
            trial.layouts[node], trial.keys[node] = layout, layer.key(layout)
    return trial


def _dense(layers: list[_Layer], costs: Costs) -> _Trial:
    layouts = {node: layer.dense(costs) for layer in layers for node in layer.nodes}
    keys = {node: layer.dense_key(costs) for layer in layers for node in layer.nodes}
    return _Trial(layouts, keys, dense=True)


class _Trials:
    """Runs trials, and adds what they measure to the times, here and in the cache."""

    def __init__(self, region: Region, times: dict[str, Sample]):
        self.region, self.times = region, times

    def run(self, trial: _Trial) -> None:
        region, own = (filled(self.region, trial.layouts)) if trial.dense else (self.region, {})
        program = lower(region, {own.get(node, node): y for node, y in trial.layouts.items()})
        seconds = dict.fromkeys(region.nodes, 0.0)
        measured = profile(program)
        for step, node in program.owners.items():
            seconds[node] += measured[step]
        found: dict[str, float] = {}
        for node in self.region.nodes:
            key = trial.keys.get(node) or described(node, self.region)
            micros = max(round(seconds[own.get(node, node)] * 1e6, 2), SHORTEST)
            found[key] = min(found.get(key, math.inf), micros)
        counted = {
            key: self.times.get(key, UNKNOWN).and_then(micros) for key, micros in found.items()
        }
        self.times |= counted
        write_cache(counted)


def described(node: Node, region: Region) -> str:
    """What the time of a node that is no product depends on."""
    sizes = [region.size(value) for value in (*node.inputs, *node.outputs)]
    return f"{str(node.op).removesuffix(getattr(node.op, 'path', ''))} {sizes}"


def filled(region: Region, products: Mapping[Node, Layout]) -> tuple[Region, dict[Node, Node]]:
    """The region with products whose weights are all there, and the node in place of each."""
    own = {node: _filled(node) for node in products}
    nodes = [own.get(node, node) for node in region.nodes]
    return Region(nodes, region.inputs, region.outputs, region.rows, region.channels_last), own


def _filled(node: Node) -> Node:
    assert isinstance(node.op, Layer)
    weights = np.ones(node.op.weights.shape, np.float32)
    return Node(node.op.changed(weights=weights), node.inputs, node.outputs)
