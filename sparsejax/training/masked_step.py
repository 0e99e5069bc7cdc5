"""One step of an optimizer on a pruned network: its state and its update land on exact zeros."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.training.second_moments import MomentRule, zeroed_moments
from sparsejax.tree import is_masked_node


def masked_step(
    masks: Any,
    inner: Any,
    rule: MomentRule,
    grads: Any,
    inner_state: Any,
    params: Any,
    **extra: Any,
) -> tuple[Any, Any]:
    """The inner optimizer's updates and state, with -w as the update of each pruned weight."""
    # Before: a weight pruned just now must not reach norms, trust ratios or orthogonalisation.
    inner_state = prune_state(inner_state, masks, rule)
    updates, inner_state = inner.update(
        zero_pruned(grads, masks), inner_state, zero_pruned(params, masks), **extra
    )
    # After: noise or a penalty inside the optimizer may have moved them again.
    inner_state = prune_state(inner_state, masks, rule)
    return _land_on_zero(updates, params, masks), inner_state


def resting_step(
    masks: Any,
    inner: Any,
    rule: MomentRule,
    grads: Any,
    inner_state: Any,
    params: Any,
    **extra: Any,
) -> tuple[Any, Any]:
    """The inner optimizer's updates and state, both at rest where the masks prune."""
    updates, moved = inner.update(zero_pruned(grads, masks), inner_state, params, **extra)
    return zero_pruned(updates, masks), _rest(moved, inner_state, masks, rule)


def zero_pruned(tree: Any, masks: Any) -> Any:
    """The tree with zeros where the masks prune."""
    return jax.tree.map(_zero_at, tree, masks, is_leaf=is_masked_node)


def prune_state(inner_state: Any, masks: Any, rule: MomentRule) -> Any:
    """An optimizer's state with zeros where the masks prune in what it holds for each weight.

    What the rule knows for second moments is filled by it.
    """

    def at(path: Any, leaf: Any, mask: Any) -> Any:
        filled = None if rule.fill is zeroed_moments else rule.at(path, leaf, mask)
        return _zero_at(leaf, mask) if filled is None else filled

    return _at_weights(at, masks, inner_state)


def _rest(moved: Any, before: Any, masks: Any, rule: MomentRule) -> Any:
    """The optimizer's new state, and that of before where the masks prune.

    What the rule knows for second moments is filled by it, unless by zeros.
    """

    def at(path: Any, leaf: Any, mask: Any, old: Any) -> Any:
        rested = jnp.where(mask, leaf, old)
        filled = None if rule.fill is zeroed_moments else rule.at(path, rested, mask)
        return rested if filled is None else filled

    return _at_weights(at, masks, moved, before)


def _at_weights(change: Callable[..., Any], masks: Any, state: Any, *others: Any) -> Any:
    """An optimizer's state with `change(path, leaf, mask, *others)` for what has a mask.

    Such a leaf has a path that ends with the weight's own, and its shape, or one more axis before
    it, as the memory of L-BFGS has. So moments in any wrapper are found without calling the
    optimizer's `init` on a placeholder, which line searches and SM3 do not bear. The gradient that
    a line search keeps for `optax.value_and_grad_from_state` stays: methods grow by it.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(masks, is_leaf=is_masked_node)
    by_path = dict(flat)

    def at(path: tuple[Any, ...], leaf: Any, *rest: Any) -> Any:
        starts = (start for start in range(len(path) + 1) if path[start:] in by_path)
        start = next(starts, None)
        if start is None or (start and getattr(path[start - 1], "name", "") == "grad"):
            return leaf
        mask = by_path[path[start:]]
        return change(path, leaf, mask, *rest) if _fits(leaf, mask) else leaf

    return jax.tree_util.tree_map_with_path(at, state, *others, is_leaf=is_masked_node)


def _fits(leaf: Any, mask: Any) -> bool:
    """Is it one number for each weight, or some? Factored moments have another shape."""
    if is_masked_node(mask) or is_masked_node(leaf):
        return False
    return mask.shape in (jnp.shape(leaf), jnp.shape(leaf)[1:])


def _zero_at(leaf: Any, mask: Any) -> Any:
    """Zeros where the mask prunes; leaves of another shape stay."""
    if not _fits(leaf, mask):
        return leaf
    return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))


def _land_on_zero(updates: Any, params: Any, masks: Any) -> Any:
    """-w at pruned weights, in the params' dtype: any narrower one would miss zero."""

    def land(update: Any, weights: Any, mask: Any) -> Any:
        if is_masked_node(mask):
            return update
        return jnp.where(mask, update.astype(weights.dtype), -weights)

    return jax.tree.map(land, updates, params, masks)
