"""The equal products of a region as one, and the region with its products filled up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.layouts.select import (
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
from sparsejax.compiler.layouts.times import Sample
from sparsejax.compiler.layouts.zeros import SKIPPING, Seen, may_skip
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.patterns import Pattern
from sparsejax.patterns.layout import Layout
from sparsejax.patterns.stacked import array_of
from sparsejax.plans.plan import Plan


@dataclass(eq=False)
class Alike:
    """The equal products of a region, which are measured as one.

    Attributes:
        traits: of each.
        full: of such a layer without zeros.
        layouts: to choose from.
        held: the layout that other numbers of rows have packed, None where there is none.
        nodes: the products.
    """

    traits: Traits
    full: Traits
    layouts: list[Layout]
    held: Layout | None
    nodes: list[Node] = field(default_factory=list)

    def key(self, layout: Layout) -> str:
        """What its time depends on."""
        return key_of(self.traits, layout)

    def missing(self, times: Mapping[str, Sample]) -> list[Layout]:
        """What was not measured."""
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
        """The fastest that was measured, or else by the model."""
        micros = {layout: times[self.key(layout)].micros for layout in self.measured(times)}
        dense = times.get(self.dense_key(costs), NO_TIME).micros
        return choose(costs, self.traits, self.layouts, micros, dense, self.held)

    def dense_key(self, costs: Costs) -> str:
        """What the time of a dense layer depends on."""
        return key_of(self.full, self.dense(costs))


NO_TIME = Sample(math.nan, 0)


def distinct(
    region: Region, plan: Plan | None, costs: Costs, held: Mapping[Node, Layout], seen: Seen
) -> list[Alike]:
    """The products of a region, equal ones together.

    Args:
        region: whose they are.
        plan: that the weights were trained with.
        costs: of the machine.
        held: the layouts that other numbers of rows have packed.
        seen: the function's values on an example.
    """
    layers: dict[tuple, Alike] = {}
    for node in filter(is_product, region.nodes):
        traits = traits_of(node, region, seen.density(node))
        layouts = candidates(costs, traits, _pattern(plan, node), rows=region.rows)
        own = held.get(node)
        layouts = list(dict.fromkeys([*layouts, *([own] if own else [])]))
        layouts += [SKIPPING] * may_skip(traits)
        key = (layer_key(traits), tuple(layouts), own)
        layers.setdefault(key, Alike(traits, dense_traits(traits), layouts, own))
        layers[key].nodes.append(node)
    return list(layers.values())


def _pattern(plan: Plan | None, node: Node) -> Pattern | None:
    """The pattern of the layer's leaf, which may be a turn of a loop over a stack."""
    if plan is None:
        return None
    assert isinstance(node.op, Layer)
    leaves = plan.slices(node.op.path) or plan.slices(array_of(node.op.path))
    return leaves[0].pattern if leaves else None


def described(node: Node, region: Region) -> str:
    """What the time of a node that is no product depends on."""
    sizes = [region.size(value) for value in (*node.inputs, *node.outputs)]
    return f"{str(node.op).removesuffix(getattr(node.op, 'path', ''))} {sizes}"


def filled(region: Region, products: Mapping[Node, Layout]) -> tuple[Region, dict[Node, Node]]:
    """The region with products whose weights are all there, and the node in place of each."""
    own = {node: filled_node(node) for node in products}
    nodes = [own.get(node, node) for node in region.nodes]
    return Region(nodes, region.inputs, region.outputs, region.rows, region.channels_last), own


def filled_node(node: Node) -> Node:
    """A product with all of its weights."""
    assert isinstance(node.op, Layer)
    weights = np.ones(node.op.weights.shape, np.float32)
    return Node(node.op.changed(weights=weights), node.inputs, node.outputs)
