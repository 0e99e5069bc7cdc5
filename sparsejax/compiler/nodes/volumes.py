"""Convolutions in three dimensions: of images that hold all depths of a window.

What cuts and joins these stays in XLA; their products run in regions.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax.compiler.graph.edit import Edit, constant_of, is_float, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.primitive import Primitive, equations
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose
from sparsejax.compiler.nodes.transposed import Phases, phases

TO_FIRST, TO_LAST = (0, 4, 1, 2, 3), (0, 2, 3, 4, 1)  # NDHWC to NCDHW, and back
ORDERS = ((0, 1, 2, 3, 4), TO_FIRST)  # the axes of batch, channels and sides: NCDHW, NDHWC
WOVEN = (0, 1, 4, 2, 5, 3, 6, 7)  # (batch, 3 sides, 3 phases, channels) with phases beside sides
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Depths:
    """Images (batch * depths, height, width, window * channels) of what a window sees of depths.

    Attributes:
        window, stride, dilation, padding: along the second axis of (batch, depth, height, width,
            channels).
        groups: of channels; those of one group at all depths lie one behind the other.
    """

    window: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    groups: int = 1
    effects = False
    name = "Depths"

    def __str__(self) -> str:
        """Window and stride."""
        return f"Depths {self.window} stride {self.stride}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        x = jnp.pad(x, ((0, 0), self.padding, (0, 0), (0, 0), (0, 0)))
        reach = (self.window - 1) * self.dilation
        taken = [
            x[:, i * self.dilation : x.shape[1] - reach + i * self.dilation : self.stride]
            for i in range(self.window)
        ]
        batch, depths, *sides, channels = taken[0].shape
        own = channels // self.groups
        in_groups = [y.reshape(batch * depths, *sides, self.groups, own) for y in taken]
        columns = jnp.concatenate(in_groups, axis=-1)
        return [columns.reshape(batch * depths, *sides, self.window * channels)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.ONE_TO_MANY


class Volumes(NamedTuple):
    """A convolution of volumes, channels last.

    Attributes:
        weights: (depth, height, width, inputs / groups, outputs).
        strides, dilation, pads, groups: of it.
        path: of the weights.
    """

    weights: np.ndarray
    strides: Triple
    dilation: Triple
    pads: tuple[tuple[int, int], ...]
    groups: int
    path: str

    def nodes(self, x: Value, shape: tuple[int, ...]) -> list[Node]:
        """Those that make an output of such a shape of volumes."""
        depth, height, width, inputs, outputs = self.weights.shape
        columns = Depths(depth, self.strides[0], self.dilation[0], self.pads[0], self.groups)
        images = shape[0] * shape[1]
        moved = made(columns, [x], (images, *x.shape[2:4], depth * x.shape[4]))
        op = Conv(
            self.weights.transpose(1, 2, 0, 3, 4).reshape(height, width, depth * inputs, outputs),
            np.zeros(outputs),
            self.path,
            self.strides[1:],
            (self.pads[1], self.pads[2]),
            self.dilation[1:],
            self.groups,
        )
        conv = made(op, moved.outputs, (images, *shape[2:]))
        return [moved, conv, made(Reshape(shape), conv.outputs, shape)]


def to_images(edit: Edit, node: Node) -> bool:
    """A convolution in three dimensions, of images that hold all depths of its window."""
    if not (isinstance(node.op, Primitive) and node.op.name == "conv_general_dilated"):
        return False
    (x, kernel), params = node.inputs, node.op.equation.params
    weights, spec = constant_of(kernel), params["dimension_numbers"]
    if weights is None or len(x.shape) != 5 or not is_float(*node.inputs, *node.outputs):
        return False
    if spec.lhs_spec != spec.out_spec or spec.lhs_spec not in ORDERS:
        return edit.refuse(node, "in 3 dimensions, and channels are neither last nor first")
    if params["batch_group_count"] != 1:
        return edit.refuse(node, "in 3 dimensions, and batch-grouped")
    pads = tuple((int(low), int(high)) for low, high in params["padding"])
    if min(map(min, pads)) < 0 or not np.isfinite(weights).all():
        return edit.refuse(node, "in 3 dimensions, with negative padding or weights not finite")
    numbers: Any = lambda name: tuple(map(int, params[name]))
    own_outputs, own_inputs, *sides = spec.rhs_spec
    volumes = Volumes(
        weights.transpose(*sides, own_inputs, own_outputs),
        numbers("window_strides"),
        numbers("rhs_dilation"),
        pads,
        int(params["feature_group_count"]),
        kernel.path,
    )
    first, shape = spec.lhs_spec == ORDERS[0], node.outputs[0].shape
    last = lambda shape: tuple(shape[axis] for axis in TO_LAST) if first else shape
    nodes = [made(Transpose(TO_LAST), [x], last(x.shape))] if first else []
    volume = nodes[0].outputs[0] if first else x
    apart = numbers("lhs_dilation")
    if apart == (1, 1, 1):
        made_of = volumes.nodes(volume, last(shape))
    elif (woven := _woven(volumes, apart, volume, last(shape))) is not None:
        made_of = woven
    else:
        return edit.refuse(node, "in 3 dimensions, and transposed with groups, strides or dilation")
    back = [made(Transpose(TO_FIRST), made_of[-1].outputs, shape)] if first else []
    return edit.replace(node, *nodes, *made_of, *back)


def _woven(
    volumes: Volumes, apart: tuple[int, ...], x: Value, shape: tuple[int, ...]
) -> list[Node] | None:
    """A transposed convolution: one whose channels are the phases of the output's pixels."""
    if volumes.groups != 1 or {*volumes.strides, *volumes.dilation} != {1}:
        return None
    axes = [
        phases(volumes.weights.shape[i], apart[i], volumes.pads[i][0], x.shape[1 + i], shape[1 + i])
        for i in range(3)
    ]
    found = [axis for axis in axes if axis is not None]
    if len(found) < 3 or min(min(axis.padding) for axis in found) < 0:
        return None
    weights = _weights(volumes.weights, found)
    changed = volumes._replace(weights=weights, pads=tuple(axis.padding for axis in found))
    batch, outputs, sizes = shape[0], shape[-1], [axis.size for axis in found]
    nodes = changed.nodes(x, (batch, *sizes, weights.shape[-1]))

    def weave(y: jax.Array) -> jax.Array:
        y = lax.transpose(lax.reshape(y, (batch, *sizes, *apart, outputs)), WOVEN)
        y = lax.reshape(y, (batch, *(n * a for n, a in zip(sizes, apart, strict=True)), outputs))
        return lax.slice(y, (0,) * 5, shape)

    equations(weave, nodes[-1].outputs, nodes)
    return nodes


def _weights(weights: np.ndarray, axes: list[Phases]) -> np.ndarray:
    """(taps, taps, taps, inputs, phases * outputs), with zeros where a phase has no weight."""
    padded = np.pad(weights, (*((0, 1),) * 3, (0, 0), (0, 0)))
    taps = np.ix_(*(axis.taps.ravel() for axis in axes))
    apart = padded[taps].reshape(*(n for axis in axes for n in axis.taps.shape), *weights.shape[3:])
    return apart.transpose(1, 3, 5, 6, 0, 2, 4, 7).reshape(
        *apart.shape[1:7:2], len(weights[0, 0, 0]), -1
    )


RULES = Rules(named=(to_images,))
