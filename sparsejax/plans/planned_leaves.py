"""Functions of one leaf of a plan, run over all of them: one program for those that are alike."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.patterns.stacked import map_slices, take
from sparsejax.plans.plan import Plan
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths, path_of

# So many weights share a loop at most: their operands are copied side by side.
_WEIGHTS_IN_A_LOOP = 2**24


def map_planned(f: Callable[..., Any], context: Any, masks: Any, *rest: Any) -> Any:
    """The tree of `f(plan leaf, mask, *others, key)`; dense leaves keep their MaskedNode.

    The layers of a stack run as one under `jax.vmap` (`map_slices`). Leaves that are alike run one
    after the other in a loop, so that a network compiles like its kinds of layers. Where f depends
    on which leaf it is, or keeps what it sees, take `each_leaf`.
    """
    keys = _keys(context)
    flat: list[Any]
    structure: Any
    flat, structure = jax.tree_util.tree_flatten_with_path(masks, is_leaf=is_masked_node)
    paths = [path_of(key_path) for key_path, _ in flat]
    results = [mask for _, mask in flat]
    rows = list(zip(results, *map(structure.flatten_up_to, rest), strict=True))
    for first, *others in _alike(context.plan, paths, rows):
        leaves = context.plan.slices(paths[first])
        if leaves[0].at:
            own = jnp.stack(keys[paths[first]])
            results[first] = map_slices(f, leaves, *rows[first], keys=own)
            continue
        calls = [(*rows[place], *keys[paths[place]]) for place in (first, *others)]
        for place, result in zip(
            (first, *others), _run_in_a_loop(f, leaves[0], calls), strict=True
        ):
            results[place] = result
    return jax.tree.unflatten(structure, results)


def map_params(f: Callable[..., Any], plan: Plan, params: Any) -> Any:
    """The tree of `f(plan leaf, weights)`, with a MaskedNode where the plan has no leaf.

    The layers of a stack run as one, as in `map_planned`.
    """

    def at(path: str, weights: Any) -> Any:
        leaves = plan.slices(path)
        return map_slices(f, leaves, weights) if leaves else optax.MaskedNode()

    return map_with_paths(at, params)


def each_leaf(f: Callable[..., Any], context: Any, masks: Any, *rest: Any) -> list[Any]:
    """What `f(plan leaf, mask, *others, key)` returns for each leaf, in the plan's order."""
    keys = _keys(context)
    trees = [dict(leaves_with_paths(tree)) for tree in (masks, *rest)]
    slices = lambda leaf: (take(leaf, tree[leaf.array_path]) for tree in trees)
    return [f(leaf, *slices(leaf), keys[leaf.array_path].pop(0)) for leaf in context.plan.leaves]


def _keys(context: Any) -> dict[str, list[Any]]:
    """Each leaf's own key, by the path of the array that holds it."""
    keys: dict[str, list[Any]] = {}
    leaves = context.plan.leaves
    for leaf, key in zip(leaves, _folded_in(context.key, len(leaves)), strict=True):
        keys.setdefault(leaf.array_path, []).append(key)
    return keys


@partial(jax.jit, static_argnums=1, inline=True)
def _folded_in(key: Any, num: int) -> list[Any]:
    return list(jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num)))


def _alike(plan: Plan, paths: list[str], rows: list[Any]) -> Iterator[list[int]]:
    """The places of the planned leaves, with those together that share a loop.

    Their patterns, targets, shapes and types are equal, and so are their paths but for numbers, as
    those of a network's layers are: a mesh shards them alike.
    """
    kinds: dict[Any, list[int]] = {}
    for place, (path, row) in enumerate(zip(paths, rows, strict=True)):
        if is_masked_node(row[0]):
            continue
        leaf = plan.slices(path)[0]
        arrays, structure = jax.tree.flatten(row)
        name = path if leaf.at else re.sub(r"\d+", "#", path)
        kind = (name, leaf.pattern, leaf.sparsity, structure, *map(jax.typeof, arrays))
        kinds.setdefault(kind, []).append(place)
    for places in kinds.values():
        size = plan.slices(paths[places[0]])[0].num_weights
        most = max(_WEIGHTS_IN_A_LOOP // max(size, 1), 1)
        yield from (places[at : at + most] for at in range(0, len(places), most))


def _run_in_a_loop(f: Callable[..., Any], leaf: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    """The results of `f(leaf, *call)`; all calls have equal shapes and types."""
    if len(calls) == 1:
        return [f(leaf, *calls[0])]
    stacked = jax.tree.map(lambda *own: jnp.stack(own), *calls)
    results = jax.lax.map(lambda own: f(leaf, *own), stacked)
    return [jax.tree.map(lambda x: x[index], results) for index in range(len(calls))]  # noqa: B023
