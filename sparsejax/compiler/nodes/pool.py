"""The maximum or average of windows."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.edit import Edit, constant_of, made
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import Pairs, sides, spatial
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.op import ImageOp, Rules, with_padding
from sparsejax.compiler.nodes.primitive import Primitive, reduced_sides, reduction
from sparsejax.compiler.nodes.reshape import Reshape

POOL = "pool"  # in xla_ops/engine/codes.def


@dataclass(frozen=True)
class Pool(ImageOp):
    """The maximum or average of windows over height and width.

    Attributes:
        kind: "max" or "average".
        window, strides, padding: of the window; a maximum takes taps inside the image alone.
        channels_last: NHWC rather than NCHW.
        counts: does an average divide by padded taps, too?
        dilation: from tap to tap.
    """

    kind: str
    window: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: Pairs = ((0, 0), (0, 0))
    channels_last: bool = True
    counts: bool = True
    dilation: tuple[int, int] = (1, 1)

    def __str__(self) -> str:
        """Kind, window and options."""
        text = f"Pool {self.kind} {self.window[0]}x{self.window[1]} strides {self.strides}"
        text += f" dilation {self.dilation}" if self.dilation != (1, 1) else ""
        return text + with_padding(self.padding) + ("" if self.counts else " inside")

    def in_order(self, channels_last: bool) -> "Pool | None":
        """The axis 2 is the width of NHWC and the height of NCHW."""
        if self.channels_last == channels_last:
            return self
        idle = 0 if self.channels_last else 1
        if any(self.padding[idle]) or (self.window[idle], self.strides[idle]) != (1, 1):
            return None
        return replace(
            self,
            window=self.window[::-1],
            strides=self.strides[::-1],
            padding=self.padding[::-1],
            dilation=self.dilation[::-1],
            channels_last=channels_last,
        )

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        window = spatial(self.window, 1, self.channels_last)
        strides = spatial(self.strides, 1, self.channels_last)
        padding = spatial(self.padding, (0, 0), self.channels_last)
        apart = spatial(self.dilation, 1, self.channels_last)
        reduced: Any = partial(
            lax.reduce_window,
            window_dimensions=window,
            window_strides=strides,
            padding=padding,
            window_dilation=apart,
        )
        if self.kind == "max":
            return [reduced(x, -jnp.inf, lax.max)]
        total = reduced(x, 0.0, lax.add)
        if self.counts:
            return [total / np.asarray(self.window[0] * self.window[1], x.dtype)]
        pixels = [x.shape[axis] for axis in sides(self.channels_last)]
        ones = jnp.ones(spatial(pixels, 1, self.channels_last), x.dtype)
        return [total / reduced(ones, 0.0, lax.add)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        pooling = "average_inside" if self.kind == "average" and not self.counts else self.kind
        pads = (self.padding[0][0], self.padding[1][0])
        options: dict[str, Any] = {"pads": pads, "pooling": pooling, "dilation": self.dilation}
        to.add(node, POOL, window=self.window, strides=self.strides, **options)


def to_global_max(edit: Edit, node: Node) -> bool:
    """A maximum over height and width is a pool with one window."""
    last = reduced_sides(node, "reduce_max")
    if last is None:
        return False
    x = node.inputs[0]
    shape = (x.shape[0], 1, 1, x.shape[3]) if last else (*x.shape[:2], 1, 1)
    height, width = sides(last)
    window = (x.shape[height], x.shape[width])
    pool = made(Pool("max", window, channels_last=last), [x], shape)
    reshape = Reshape(node.outputs[0].shape)
    return edit.replace(node, pool, made(reshape, pool.outputs, reshape.shape))


def to_pool(edit: Edit, node: Node) -> bool:
    """A maximum or a sum over windows; the sum is an average and a factor."""
    params = reduction(node, "reduce_window_max", "reduce_window_sum")
    if params is None:
        return False
    if any(d != 1 for d in params["base_dilation"]):
        return edit.refuse(node, "pixels apart")
    x, shape = node.inputs[0], node.outputs[0].shape
    window, strides, padding = (
        list(params[name]) for name in ("window_dimensions", "window_strides", "padding")
    )
    kept = _without_unit_axes(x.shape, window)
    if kept is None:
        return edit.refuse(node, "not in two dimensions")
    image = made(Reshape(_take(x.shape, kept)), [x], _take(x.shape, kept))
    last = _channels_last([window[i] for i in kept], [strides[i] for i in kept])
    spatial = [kept[i] for i in (sides(last))]
    others = [i for i in range(len(window)) if i not in spatial]
    if any(window[i] != 1 or strides[i] != 1 or any(padding[i]) for i in others):
        return edit.refuse(node, "not over height and width")
    pads: Any = tuple((int(padding[i][0]), int(padding[i][1])) for i in spatial)
    apart: Any = tuple(int(params["window_dilation"][i]) for i in spatial)
    within = [1 if apart[k] > 1 else window[i] for k, i in enumerate(spatial)]
    if any(max(pads[k]) >= within[k] for k in range(2)):
        return edit.refuse(node, "a window that lies in the padding")
    kind = "max" if node.op.name == "reduce_window_max" else "average"  # type: ignore[union-attr]
    size, steps = (tuple(int(a[i]) for i in spatial) for a in (window, strides))
    op = Pool(kind, size, steps, pads, last, dilation=apart)  # type: ignore[arg-type]
    nodes = [image, made(op, image.outputs, _take(shape, kept))]
    if kind == "average":
        factor = Affine(np.full(1, float(math.prod(size))), np.zeros(1))
        nodes.append(made(factor, nodes[-1].outputs, _take(shape, kept)))
    return edit.replace(node, *nodes, made(Reshape(shape), nodes[-1].outputs, shape))


def _take(shape: tuple, axes: list[int]) -> tuple:
    return tuple(shape[axis] for axis in axes)


def _channels_last(window: list, strides: list) -> bool:
    """Do windows move over axes 1 and 2 of four, rather than over 2 and 3?"""
    return not (window[3] != 1 or strides[3] != 1)


def _without_unit_axes(shape: tuple, window: list) -> list[int] | None:
    """Four axes of an image among more, as vmap adds them; none of the others is longer than 1."""
    kept = list(range(len(shape)))
    for axis in range(len(shape)):
        if len(kept) > 4 and shape[axis] == 1 and window[axis] == 1:
            kept.remove(axis)
    return kept if len(kept) == 4 else None


def counts_inside(edit: Edit, node: Node) -> bool:
    """A sum over windows divided by how many taps lie inside the image."""
    if not isinstance(node.op, Primitive) or node.op.name not in ("div", "mul"):
        return False
    counts = constant_of(node.inputs[1])
    before = edit.sole_writer(node.inputs[0], Affine)
    pool = before and edit.sole_writer(before.inputs[0], Pool)
    if counts is None or not before or not pool or not isinstance(pool.op, Pool):
        return False
    affine, op = before.op, pool.op
    assert isinstance(affine, Affine)
    whole = math.prod(op.window)
    if op.dilation != (1, 1):
        return False
    if op.kind != "average" or affine.scale.size > 1 or affine.scale[0] != whole:
        return False
    if affine.shift.any() or affine.activation or not op.counts:
        return False
    # A mean over the taps inside is traced as (mean * taps) / counts: the counts are a constant,
    # and only if they are these is the division the pool's own.
    expected = _taps_inside(pool.inputs[0], pool.outputs[0], op)
    factors = 1 / expected if node.op.name == "mul" else expected
    if counts.ndim != 4 or not np.allclose(counts, factors, rtol=1e-6, atol=0):
        return False
    return edit.replace(node, made(replace(op, counts=False), pool.inputs, node.outputs[0].shape))


def _taps_inside(x: Value, y: Value, op: Pool) -> np.ndarray:
    """How many taps of each window lie inside the image, with axes of length 1 for the others."""
    counts = []
    for i, axis in enumerate(sides(op.channels_last)):
        first = np.arange(y.shape[axis]) * op.strides[i] - op.padding[i][0]
        last = np.minimum(first + op.window[i], x.shape[axis])
        counts.append(last - np.maximum(first, 0))
    grid = np.outer(*counts).astype(np.float64)
    return grid[None, :, :, None] if op.channels_last else grid[None, None]


RULES = Rules(named=(to_pool, to_global_max, counts_inside))
