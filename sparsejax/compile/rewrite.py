"""A traced graph with layers, activations, pools and moves of channels in place of equations."""

import numpy as np

from sparsejax.compile import fuse_activation, fuse_channels, fuse_residual, fuse_scale
from sparsejax.compile import rewrite_layers as layers
from sparsejax.compile import rewrite_layouts as layouts
from sparsejax.compile import rewrite_pools as pools
from sparsejax.compile import rewrite_shapes as shapes
from sparsejax.compile.edit import Edit, Rule
from sparsejax.compile.graph import (
    Affine,
    Channels,
    Concat,
    Conv,
    Elementwise,
    Graph,
    Mean,
    Node,
    Pad,
    Pool,
    Value,
)

SHAPES: tuple[Rule, ...] = (
    shapes.merge,
    shapes.sink,
    shapes.sink_pair,
    shapes.mean_keeps,
    layouts.sink_layout,
)
SCALES: tuple[Rule, ...] = (fuse_scale.merge_affine, fuse_scale.into_layer_before)
NAMED: tuple[Rule, ...] = (
    layers.to_conv,
    layers.to_linear,
    pools.to_pool,
    pools.to_mean,
    pools.to_global_max,
    pools.counts_inside,
    shapes.to_channels,
    shapes.to_concat,
    shapes.to_pad,
    fuse_scale.to_affine,
    fuse_residual.to_elementwise,
)
# Activations come first: scales would tear hard_swish apart. Affine nodes meet each other before
# they meet a layer, so that its weights are rounded once.
PHASES: tuple[tuple[Rule, ...], ...] = (
    NAMED + SHAPES + (fuse_scale.merge_affine,),
    (*SHAPES, *SCALES, layers.to_pixels, shapes.to_shuffle, fuse_residual.broadcast_gate),
    (
        *SHAPES,
        *SCALES,
        fuse_scale.into_layer_behind,
        fuse_channels.into_layer_before,
        fuse_channels.into_layer_behind,
        fuse_residual.pad_into_conv,
        pools.pad_into_average,
        fuse_residual.into_layer,
        fuse_residual.activation_into,
    ),
)


def rewrite(graph: Graph) -> Graph:
    """The graph, changed in place: no value of it is another than before, but for rounding."""
    edit = Edit(graph)
    edit.sweep((fuse_activation.to_activation,), backward=True)
    for rules in PHASES:
        while edit.sweep(rules):
            pass
    edit.finish()
    _settle(graph)
    return graph


def _settle(graph: Graph) -> None:
    """Give every Affine its axis and one number a channel."""
    axes = channel_axes(graph)
    for node in graph.nodes:
        if isinstance(node.op, Affine):
            shape = node.outputs[0].shape
            axis = node.op.axis if node.op.scale.size > 1 else axes[node.outputs[0]]
            channels = shape[axis] if shape else 1
            scale, shift = (np.broadcast_to(a, channels) for a in (node.op.scale, node.op.shift))
            node.op = Affine(scale, shift, axis, node.op.activation)


def channel_axes(graph: Graph) -> dict[Value, int]:
    """The axis of the channels of every value: as its neighbours have it, else the last."""
    axes: dict[Value, int] = {}
    for node in graph.nodes:
        axis = _own_axis(node)
        if axis is not None:
            values = [v for v in (*node.inputs, *node.outputs) if len(v.shape) == 4]
            axes.update(dict.fromkeys(values, axis))
    for nodes in (graph.nodes, graph.nodes[::-1], graph.nodes):
        for node in nodes:
            _spread(node, axes)
    values = [*graph.inputs, *(v for node in graph.nodes for v in (*node.inputs, *node.outputs))]
    return {v: axes.get(v, len(v.shape) - 1) for v in values}


def _own_axis(node: Node) -> int | None:
    """The channels' axis of a node on images that has one."""
    op = node.op
    if isinstance(op, Conv | Pool | Mean | Pad):
        return 3 if op.channels_last else 1
    if isinstance(op, Concat | Channels):
        return op.axis
    return op.axis if isinstance(op, Affine) and op.scale.size > 1 else None


def _spread(node: Node, axes: dict[Value, int]) -> None:
    """What is done number by number has one layout."""
    if isinstance(node.op, Elementwise | Affine):
        values = [*node.inputs, *node.outputs]
        known = next((axes[v] for v in values if v in axes), None)
        if known is not None:
            for value in values:
                axes.setdefault(value, known)
