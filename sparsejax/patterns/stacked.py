"""Layers stacked in one array, as scans need them: each slice is a leaf of the plan by itself."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.patterns import Pattern

Places = tuple[tuple[int, int], ...]  # (axis of the array, index along it)


@dataclass(frozen=True)
class Stacked:
    """A rule of `plan` for layers stacked in one array: the pattern on each of them by itself.

    `nn.scan`, `lax.scan` and `nn.vmap` keep the kernels of L layers in one array of shape (L, in,
    out). With this rule the plan has L leaves for it, "layers/kernel[0]" and so on, of shape (in,
    out): each has its own target, exact count, threshold, calibration and row in the report, as if
    the layers were written out.

    Args:
      pattern: of one layer; its axes are those of one layer.
      axes: of the array, along which layers are stacked: 0, or several for scans within scans.

    Example:
      >>> params = {"layers": {"kernel": jnp.ones((3, 8, 4))}}
      >>> plan = sj.plan(params, {"layers": sj.Stacked(sj.Unstructured())}, sparsity=0.75)
      >>> [(leaf.path, leaf.num_pruned) for leaf in plan.leaves][1:]
      [('layers/kernel[1]', 24), ('layers/kernel[2]', 24)]
    """

    pattern: Pattern
    axes: int | tuple[int, ...] = 0

    def places(self, shape: tuple[int, ...], path: str) -> Iterator[Places]:
        """Where each slice lies in an array of this shape."""
        axes = (self.axes,) if isinstance(self.axes, int) else tuple(self.axes)
        rank = len(shape)
        own = sorted({axis % rank for axis in axes if -rank <= axis < rank})
        if len(own) != len(axes) or not axes or len(own) == rank:
            raise ValueError(
                f"{path}: Stacked needs axes that the array has besides those of a layer, got "
                f"axes={self.axes} for shape {shape}; name the axes of the layers."
            )
        for indices in product(*(range(shape[axis]) for axis in own)):
            yield tuple(zip(own, indices, strict=True))


def name_of(path: str, at: Places) -> str:
    """The path of a slice: "layers/kernel[3]"; the array's own where it is no stack."""
    return f"{path}[{', '.join(str(index) for _, index in at)}]" if at else path


def array_of(path: str) -> str:
    """The path of the array that a layer such as "layers/kernel[3]" or "kernel[1][2]" lies in."""
    return re.sub(r"(\[[\d, ]+\])+$", "", path)


def slice_shape(shape: tuple[int, ...], at: Places) -> tuple[int, ...]:
    """The shape of a slice of an array."""
    stacked = {axis for axis, _ in at}
    return tuple(size for axis, size in enumerate(shape) if axis not in stacked)


def array_shape(leaves: Sequence[Any]) -> tuple[int, ...]:
    """The shape of the array that these leaves of a plan are the slices of."""
    shape = list(leaves[0].shape)
    for axis, index in leaves[-1].at:
        shape.insert(axis, index + 1)
    return tuple(shape)


def take(leaf: Any, array: Any) -> Any:
    """The slice of an array that a leaf of the plan is, also of a jax.ShapeDtypeStruct."""
    if not leaf.at:
        return array
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(slice_shape(array.shape, leaf.at), array.dtype)
    where = dict(leaf.at)
    return array[tuple(where.get(axis, slice(None)) for axis in range(array.ndim))]


def from_slices(leaves: Sequence[Any], parts: Sequence[Any]) -> Any:
    """The array of these slices; what has another shape, such as a count, is stacked in front."""
    if not leaves[0].at:
        return parts[0]
    return jax.tree.map(lambda *own: _joined(leaves, jnp.stack(own)), *parts)


def map_slices(f: Callable[..., Any], leaves: Sequence[Any], *values: Any, keys: Any = None) -> Any:
    """The array, or pytree, of `f(leaf, *slices of the values, key)` of each leaf of one array.

    Leaves with equal targets run as one under `jax.vmap`, so that a stack compiles like a layer: f
    must be pure, and the leaf that it gets stands for all of them and bears the array's path.
    """
    if not leaves[0].at:
        return f(leaves[0], *values, *(() if keys is None else (keys[0],)))
    rows = jax.tree.map(lambda value: _rows(leaves, value), values)
    rows = rows if keys is None else (*rows, keys)
    order: list[int] = []
    parts = []
    by_target = lambda index: leaves[index].sparsity
    for _, group in groupby(sorted(range(len(leaves)), key=by_target), by_target):
        members = list(group)
        leaf = replace(leaves[members[0]], path=leaves[0].array_path, at=())
        own = rows if len(members) == len(leaves) else jax.tree.map(lambda x: x[members, ...], rows)  # noqa: B023
        parts.append(jax.vmap(lambda *slices: f(leaf, *slices))(*own))  # noqa: B023
        order += members
    together = jax.tree.map(lambda *own: jnp.concatenate(own), *parts) if parts[1:] else parts[0]
    if parts[1:]:
        together = jax.tree.map(lambda x: x[np.argsort(order)], together)
    return jax.tree.map(lambda x: _joined(leaves, x), together)


def _lengths(leaves: Sequence[Any]) -> tuple[int, ...]:
    return tuple(index + 1 for _, index in leaves[-1].at)


def _rows(leaves: Sequence[Any], value: Any) -> Any:
    """The slices in front, one a row."""
    if value.shape == array_shape(leaves):
        axes = [axis for axis, _ in leaves[0].at]
        value = jnp.moveaxis(value, axes, range(len(axes)))
    return value.reshape(len(leaves), *value.shape[len(leaves[0].at) :])


def _joined(leaves: Sequence[Any], rows: Any) -> Any:
    """The array of the rows."""
    axes = [axis for axis, _ in leaves[0].at]
    array = rows.reshape(*_lengths(leaves), *rows.shape[1:])
    if rows.shape[1:] != leaves[0].shape:
        return array
    return jnp.moveaxis(array, range(len(axes)), axes)
