"""A traced graph with layers, activations, pools and moves of channels in place of equations."""

import numpy as np

from sparsejax.compiler import fuse_activation, fuse_channels, fuse_residual, fuse_scale
from sparsejax.compiler import rewrite_layers as layers
from sparsejax.compiler import rewrite_layouts as layouts
from sparsejax.compiler import rewrite_pools as pools
from sparsejax.compiler import rewrite_shapes as shapes
from sparsejax.compiler.channel_axes import LAST, channel_axes, in_layout
from sparsejax.compiler.edit import Edit, Rule
from sparsejax.compiler.graph import Affine, Graph, Pad, Pool

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
    """Give every Affine its axis and one number a channel, and what fits two layouts one."""
    axes = channel_axes(graph)
    for node in graph.nodes:
        if isinstance(node.op, Affine):
            shape = node.outputs[0].shape
            axis = node.op.axis if node.op.scale.size > 1 else axes.get(node, len(shape) - 1)
            channels = shape[axis] if shape else 1
            scale, shift = (np.broadcast_to(a, channels) for a in (node.op.scale, node.op.shift))
            node.op = Affine(scale, shift, axis, node.op.activation)
        elif isinstance(node.op, Pool | Pad):
            node.op = in_layout(node.op, axes[node] == LAST)
