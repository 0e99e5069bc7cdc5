"""The largest groups of nodes that can each run as one call, and the order to run them in."""

import heapq
import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sparsejax.compiler.graph.graph import FLOAT32, Graph, Left, Node, Region, Value
from sparsejax.compiler.graph.images import FIRST
from sparsejax.compiler.nodes.control import Control
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.nodes.op import RegionOp
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.passes.channel_axes import channel_axes
from sparsejax.compiler.regions.partition import Partition, in_order, partition

MAX_SIDE, MAX_FLOATS = 1 << 24, 1 << 31  # of a value in the engine


class Form(NamedTuple):
    """What all values of a region have in common.

    Attributes:
        leading: the axes before the channels; of images the batch alone.
        axis: of the channels in images, 0 where no image was met.
        rows_meet: do rows meet, which (rows, channels) would not as so many images?
    """

    leading: tuple[int, ...]
    axis: int
    rows_meet: bool = False


def split(graph: Graph, apart: Collection[Node] = ()) -> list[Region | Node]:
    """Regions, and the nodes that stay in XLA, in an order that they can run in.

    A node joins the groups that feed it, then those that read what it reads. Groups without a
    layer go back to XLA; `graph.left` says what and why.

    Args:
        graph: to split.
        apart: nodes that are to stay in XLA.
    """
    axes = channel_axes(graph)
    forms = {node: form for node in graph.nodes if (form := form_of(node, axes.get(node)))}
    forms = {node: form for node, form in forms.items() if node not in apart}
    _free_views(graph, forms)
    groups = partition(graph, forms, join)
    graph.schedule = steps = _ordered(graph, groups)
    nodes = [step for step in steps if isinstance(step, Node)]
    bodies = [body for node in nodes if isinstance(node.op, Control) for body in node.op.bodies]
    for body in bodies:
        split(body, apart)
    nodes = [node for node in nodes if not isinstance(node.op, Control)]
    graph.left = _together([_left(graph, nodes, forms), *(body.left for body in bodies)])
    return steps


def _free_views(graph: Graph, forms: dict[Node, Form]) -> None:
    """Leave to XLA what reshapes its values: there it costs nothing, in the engine a copy."""
    written: set[Value] = set()
    for node in graph.nodes:
        if isinstance(node.op, Reshape) and node.inputs[0] not in written:
            forms.pop(node, None)
        if node in forms:
            written.update(node.outputs)


def join(a: Form | None, b: Form | None) -> Form | None:
    """The form of two groups together."""
    if a is None or b is None or a.leading != b.leading:
        return None
    if 0 not in (a.axis, b.axis) and a.axis != b.axis:
        return None
    both = Form(a.leading, max(a.axis, b.axis), a.rows_meet or b.rows_meet)
    return None if both.axis and both.rows_meet else both


def form_of(node: Node, axis: int | None) -> Form | None:
    """The form of a region of this node alone, None where it cannot be in any.

    Args:
        node: of a graph.
        axis: of the channels in the images that it works on, None where it works on none.
    """
    values = [*node.inputs, *node.outputs]
    if not isinstance(node.op, RegionOp) or len(node.outputs) != 1:
        return None
    if any(v.constant is not None or v.dtype != FLOAT32 or 0 in v.shape for v in values):
        return None
    if any(max(_sides(v), default=1) > MAX_SIDE or v.size > MAX_FLOATS for v in values):
        return None
    ranks = {len(v.shape) for v in values}
    if 4 in ranks and ranks <= {2, 4}:
        batches = {v.shape[0] for v in values}
        return Form((batches.pop(),), axis) if axis is not None and len(batches) == 1 else None
    leading = {v.shape[:-1] for v in values}
    if len(leading) != 1 or 0 in ranks or max(ranks) - 1 not in node.op.channel_axes(node):
        return None
    return Form(leading.pop(), 0, node.op.rows_meet)


def _sides(value: Value) -> tuple[int, ...]:
    """The sides of an image, or how many rows and channels there are."""
    shape = value.shape
    return shape[1:] if len(shape) == 4 else (math.prod(shape[:-1]), *shape[-1:])


def _ordered(graph: Graph, groups: Partition) -> list[Region | Node]:
    """Regions and single nodes, each when all that it reads is there; the earliest first."""
    # A group without a layer would be a call of the engine for a few additions: its nodes stay
    # with XLA, each by itself, which fuses them with their neighbours.
    heavy = {
        number
        for number, nodes in groups.members.items()
        if groups.forms[number] and any(isinstance(node.op, Layer) for node in nodes)
    }
    place = {node: i for i, node in enumerate(graph.nodes)}
    first: dict[int, int] = {}
    step_of: dict[Node, int] = {}
    for node in graph.nodes:
        number = groups.group[node]
        step_of[node] = first.setdefault(number, place[node]) if number in heavy else place[node]
    writer = {value: node for node in graph.nodes for value in node.outputs}
    waits: dict[int, set[int]] = {step: set() for step in step_of.values()}
    effects = in_order(graph)
    for node in graph.nodes:
        feeding = {step_of[writer[v]] for v in node.inputs if v in writer}
        feeding |= {step_of[other] for other in effects.get(node, ())}
        waits[step_of[node]] |= feeding - {step_of[node]}
    regions = _regions(graph, groups, heavy)
    at = {first[number]: region for number, region in regions.items()}
    return [at.get(step, graph.nodes[step]) for step in _in_order(waits)]


def _in_order(waits: dict[int, set[int]]) -> list[int]:
    """The steps, each after all that it waits for."""
    after: dict[int, list[int]] = {}
    for step, others in waits.items():
        for other in others:
            after.setdefault(other, []).append(step)
    missing = {step: len(others) for step, others in waits.items()}
    ready = sorted(step for step, count in missing.items() if count == 0)
    order = []
    while ready:
        step = heapq.heappop(ready)
        order.append(step)
        for other in after.get(step, ()):
            missing[other] -= 1
            if missing[other] == 0:
                heapq.heappush(ready, other)
    assert len(order) == len(waits), "regions wait for each other"
    return order


def _regions(graph: Graph, groups: Partition, numbers: set[int]) -> dict[int, Region]:
    """The regions of groups, with the values that cross their borders."""
    users, place = graph.users(), {node: i for i, node in enumerate(graph.nodes)}
    regions = {}
    for number in numbers:
        nodes = sorted(groups.members[number], key=lambda node: place[node])
        form, members = groups.forms[number], set(nodes)
        written = [value for node in nodes for value in node.outputs]
        inner = set(written)
        read = dict.fromkeys(v for node in nodes for v in node.inputs if v not in inner)
        outputs = [
            v
            for v in written
            if v in graph.outputs or any(user not in members for user in users.get(v, ()))
        ]
        rows, last = form.axis == 0, form.axis != FIRST
        regions[number] = Region(nodes, list(read), outputs, rows, last)
    return regions


def _left(graph: Graph, nodes: Sequence[Node], forms: dict[Node, Form]) -> dict[str, Left]:
    """What stayed in XLA, most frequent first."""
    names = [node.op.name for node in nodes]
    reasons: dict[str, str] = {}
    for name, node in zip(names, nodes, strict=True):
        own = graph.reasons.get(node, "no kind of node")
        if node in forms:
            own = "no layer beside it"
        elif not isinstance(node.op, Primitive) and node not in graph.reasons:
            own = "not in the form of its neighbours"
        reasons.setdefault(name, own)
    return {name: Left(n, reasons[name]) for name, n in Counter(names).most_common()}


def _together(lefts: Sequence[dict[str, Left]]) -> dict[str, Left]:
    """What stayed in XLA of a graph and of the bodies of its loops."""
    made: dict[str, Left] = {}
    for name, entry in (item for left in lefts for item in left.items()):
        before = made.get(name, Left(0, entry.reason))
        made[name] = Left(before.count + entry.count, before.reason)
    return made
