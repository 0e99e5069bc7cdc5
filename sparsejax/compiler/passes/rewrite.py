"""A traced graph with layers, activations, pools and moves of channels in place of equations."""

from sparsejax.compiler.graph.edit import Edit, Rule
from sparsejax.compiler.graph.graph import Graph
from sparsejax.compiler.nodes import KINDS
from sparsejax.compiler.nodes.control import Control
from sparsejax.compiler.nodes.op import RegionOp
from sparsejax.compiler.passes import axis_orders, common, fuse_activation, sequences, shapes, turns
from sparsejax.compiler.passes.channel_axes import channel_axes

SHAPES: tuple[Rule, ...] = (
    shapes.merge,
    shapes.sink,
    shapes.sink_pair,
    shapes.sink_rows,
    shapes.mean_keeps,
    axis_orders.sink_order,
    axis_orders.turn_image,
)
# Activations come first: scales would tear hard_swish apart. Affine nodes meet each other before
# they meet a layer, so that its weights are rounded once.
PHASES: tuple[tuple[Rule, ...], ...] = (
    (*SHAPES, *(rule for kind in KINDS for rule in kind.named)),
    (*SHAPES, *(rule for kind in KINDS for rule in kind.joined)),
    (*SHAPES, *(rule for kind in KINDS for rule in kind.fused)),
)


def rewrite(graph: Graph) -> Graph:
    """The graph, changed in place: no value of it is another than before, but for rounding."""
    edit = Edit(graph)
    edit.sweep([rule for kind in KINDS for rule in kind.first], backward=True)
    edit.sweep([rule for kind in KINDS for rule in kind.sampled], backward=True)
    edit.sweep((fuse_activation.to_activation,), backward=True)
    _sweep(edit)
    if sequences.to_images(edit):
        _sweep(edit)
    if edit.sweep((axis_orders.raise_order,)):
        edit.sweep((shapes.merge,))
    common.share(edit)
    edit.finish()
    _settle(graph)
    for node in graph.nodes:
        if isinstance(node.op, Control):
            turns.orders_into_body(edit, node)
            for body in node.op.bodies:
                rewrite(body)
    graph.prune()
    return graph


def _sweep(edit: Edit) -> None:
    for rules in PHASES:
        while edit.sweep(rules):
            pass


def _settle(graph: Graph) -> None:
    """Give every node the axis of its channels: an Affine, and what fits two orders of axes."""
    axes = channel_axes(graph)
    for node in graph.nodes:
        if isinstance(node.op, RegionOp):
            shape = node.outputs[0].shape
            node.op = node.op.settled(axes.get(node, len(shape) - 1), shape)
