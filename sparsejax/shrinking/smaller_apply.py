"""The traced function on smaller leaves, for any input shapes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sparsejax.jaxprs.widths.fills import Removal
from sparsejax.jaxprs.widths.groups import Traced, traced
from sparsejax.jaxprs.widths.narrowing import narrowed
from sparsejax.shrinking.cut import Stays
from sparsejax.tree import leaves_with_paths, map_with_paths


def smaller_apply(apply_fn: Callable[..., Any], params: Any, stays: Stays) -> Callable[..., Any]:
    """`apply_fn` on params that were cut so; it is traced on the old shapes, for each of inputs."""
    shapes = map_with_paths(lambda path, leaf: _shape_of(leaf), params)
    versions: dict[Any, Callable[..., Any]] = {}

    def apply(params: Any, *inputs: Any) -> Any:
        """What the large function gives with zeros in the channels that were cut."""
        leaves, treedef = jax.tree.flatten(inputs)
        key = (treedef, *((np.shape(x), jax.dtypes.result_type(x)) for x in leaves))
        if key not in versions:
            example = jax.tree.map(_shape_of, inputs)
            versions[key] = jax.jit(version(traced(apply_fn, shapes, example), stays))
        arrays = {path: x for path, x in leaves_with_paths(params) if hasattr(x, "shape")}
        return versions[key](arrays, leaves)

    return apply


def _shape_of(leaf: Any) -> Any:
    if not hasattr(leaf, "shape"):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def keep_of(made: Traced, stays: Stays) -> dict[int, np.ndarray]:
    """Which units of each run stay, in another trace of the same function."""
    keep = {}
    for name, run in made.runs.items():
        for path, axis, positions in made.groups[name].places:
            own = stays.get(path, {}).get(axis)
            if own is not None and not own[positions].any(1).all():
                keep[run] = own[positions].any(1)
    return keep


def version(made: Traced, stays: Stays) -> Callable[..., Any]:
    """The adapted program as a function of the arrays by path, and of the inputs' leaves."""
    removal = Removal(made.spans, keep_of(made, stays))

    def run(arrays: dict[str, Any], inputs: list[Any]) -> Any:
        own = [arrays[path] for path in made.leaves]
        outputs = narrowed(removal, made.program, [*own, *inputs])
        return jax.tree.unflatten(made.output_tree, outputs)

    return run
