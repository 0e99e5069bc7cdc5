"""Functions of params as jaxprs, and jaxprs run over values of any kind."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from sparsejax.tree import leaves_with_paths, map_with_paths


def split(tree: Any, is_array: Callable[[Any], bool]) -> tuple[list[Any], Callable[..., Any]]:
    """The tree's arrays, and `merged(arrays)`: the tree with others in their places.

    Leaves that are none, such as the functions of an Equinox module, stay what they are.
    """
    leaves, treedef = jax.tree.flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if is_array(leaf)]

    def merged(arrays: Sequence[Any]) -> Any:
        own = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            own[place] = array
        return jax.tree.unflatten(treedef, own)

    return [leaves[place] for place in places], merged


def by_paths(
    apply_fn: Callable[..., Any], params: Any
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """The params' arrays by path in sorted order, and apply_fn of such a dict and the inputs."""
    arrays = {path: leaf for path, leaf in leaves_with_paths(params) if hasattr(leaf, "shape")}

    def call(values: dict[str, Any], *inputs: Any) -> Any:
        return apply_fn(map_with_paths(lambda path, x: values.get(path, x), params), *inputs)

    return dict(sorted(arrays.items())), call


def walk(
    jaxpr: core.Jaxpr,
    constants: Sequence[Any],
    inputs: Sequence[Any],
    step: Callable[[Any, list[Any]], Sequence[Any]],
    known: Callable[[Any, Any], Any],
) -> list[Any]:
    """What stands for the outputs, where `step(equation, operands) -> results` runs an equation.

    `known(variable, value)` stands for the jaxpr's own constants, and for literals.
    """
    env = {v: known(v, value) for v, value in zip(jaxpr.constvars, constants, strict=True)}
    env |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(v: Any) -> Any:
        return known(v, v.val) if isinstance(v, core.Literal) else env[v]

    for equation in jaxpr.eqns:
        results = step(equation, [read(v) for v in equation.invars])
        env.update(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]
