"""Arrays in other shapes, sharded as before: matrix views, split axes, what varies over a mesh."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array


def as_matrix(leaf: Any, output_axis: int = -1) -> Any:
    """The leaf as (outputs, everything else flattened); NumPy stays NumPy, JAX stays JAX."""
    order = _outputs_first(leaf.ndim, output_axis)
    return leaf.transpose(order).reshape(leaf.shape[order[0]], -1)


def from_matrix(matrix: Any, leaf_shape: tuple[int, ...], output_axis: int = -1) -> Any:
    """The inverse of `as_matrix`: the leaf of shape `leaf_shape`."""
    order = _outputs_first(len(leaf_shape), output_axis)
    return matrix.reshape([leaf_shape[axis] for axis in order]).transpose(np.argsort(order))


def _outputs_first(num_axes: int, output_axis: int) -> list[int]:
    if not -num_axes <= output_axis < num_axes:
        raise ValueError(f"output_axis must name one of {num_axes} axes, got {output_axis}.")
    first = output_axis % num_axes
    return [first, *(axis for axis in range(num_axes) if axis != first)]


def split_axes(array: Any, steps: Sequence[int]) -> Any:
    """The array with each axis as (length / step, step); NumPy stays NumPy."""
    pairs = list(zip(array.shape, steps, strict=True))
    shape = [length for size, step in pairs for length in (size // step, step)]
    if isinstance(array, np.ndarray):
        return array.reshape(shape)
    names: list[Any] = []
    mesh = jax.typeof(array).sharding.mesh
    for (size, step), name in zip(pairs, jax.typeof(array).sharding.spec, strict=True):
        axes = (name,) if isinstance(name, str) else (name or ())
        num_shards = math.prod(mesh.shape[axis] for axis in axes)
        names += [name, None] if size // step % num_shards == 0 else [None, name]
    return reshape(array, shape, names)


def reshape(array: Any, shape: Sequence[int], names: Sequence[Any]) -> Any:
    """The array in the shape, with these axis names where the mesh is explicit."""
    mesh = jax.typeof(array).sharding.mesh
    explicit = any(name is not None for name in names)
    out = jax.sharding.NamedSharding(mesh, jax.P(*names)) if explicit else None
    return jax.lax.reshape(array, shape, out_sharding=out)


def vary_alike(*arrays: Any) -> tuple[Array, ...]:
    """The arrays, each varying over all mesh axes that any of them varies over in a `shard_map`.

    Transposed, it sums the gradients of what the devices share.
    """
    own = [frozenset(jax.typeof(array).manual_axis_type.varying) for array in arrays]
    everywhere = frozenset[str]().union(*own)
    missing = [tuple(sorted(everywhere - varying)) for varying in own]
    return tuple(
        jax.lax.pcast(array, axes, to="varying") if axes else array
        for array, axes in zip(arrays, missing, strict=True)
    )
