"""Whether plans, states and masks belong together; each error names the leaf."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.patterns.stacked import take
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.tree import is_masked_node, leaves_with_paths


def check_params(plan: Plan, params: Any) -> None:
    """Raise a ValueError naming the first leaf of the plan that the params lack or have otherwise.

    Params without leaves pass: optax.tree.map_params calls init on a placeholder.
    """
    leaves = dict(leaves_with_paths(params))
    for path, shape in plan.shapes.items() if leaves else ():
        there = leaves.get(path)
        if is_masked_node(there):
            raise ValueError(
                f"sparsify needs every leaf of its plan, {path} is masked out by an "
                "optax.masked, partition or multi_transform around it; let its mask or label cover "
                "the leaf, or give sparsify a plan without it."
            )
        if there is None or jnp.shape(there) != shape:
            there = "no such leaf" if there is None else jnp.shape(there)
            raise ValueError(
                f"sparsify needs the params that the plan was made for: {path} has shape "
                f"{shape} in the plan and {there} in the params; make the plan anew."
            )


def check_state(state: Any, plan: Plan, *, asker: str, hint: str) -> None:
    """Raise a ValueError unless the SparsifyState is of the plan, naming the first leaf that isn't.

    Looks at the plan that the state was made with and at the layout of its masks, nothing traced.
    """
    check_same_plan(state.reparam.plan, plan, asker=asker, whose="the state", hint=hint)
    check_layout(state.masks, plan, asker=asker, hint=hint)


def check_plans(states: Sequence[Any], plan: Plan, *, asker: str, hint: str) -> None:
    """Raise a ValueError naming the first leaf in which the states' plans differ from the plan.

    Several states, such as optax.partition's, plan a leaf each, in an order of their own.
    """
    theirs = {leaf.path: leaf for state in states for leaf in state.reparam.plan.leaves}
    ordered = {leaf.path: theirs[leaf.path] for leaf in plan.leaves if leaf.path in theirs} | theirs
    whole = replace(plan, leaves=tuple(ordered.values()))
    check_same_plan(whole, plan, asker=asker, whose="the state", hint=hint)


def check_same_plan(other: Any, plan: Plan, *, asker: str, whose: str, hint: str) -> None:
    """Raise a ValueError naming the first leaf in which the plans differ.

    Args:
      other: the plan of a state or a checkpoint.
      plan: the one that is asked for.
      asker: who needs them to be equal.
      whose: what has the other plan, such as "the state".
      hint: what to do.
    """
    if other is plan or other == plan:
        return
    paths = dict.fromkeys([leaf.path for leaf in (*plan.leaves, *other.leaves)])
    theirs, ours = ({leaf.path: leaf for leaf in each.leaves} for each in (other, plan))
    path = next((path for path in paths if theirs.get(path) != ours.get(path)), None)
    if path is None:
        raise ValueError(
            f"{asker} needs {whose} of its own plan, got one with the same leaves in another order;"
            f" {hint}."
        )
    raise ValueError(
        f"{asker} needs {whose} of its own plan: {path} is {_words(theirs.get(path))} in {whose} "
        f"and {_words(ours.get(path))} in the plan; {hint}."
    )


def check_layout(masks: Any, plan: Plan, *, asker: str, hint: str) -> None:
    """Raise a ValueError unless exactly the plan's leaves have masks, bool and of their shapes.

    Looks at nothing but shapes and dtypes, so that it may stand in a jitted function.
    """
    there = {path: mask for path, mask in leaves_with_paths(masks) if not is_masked_node(mask)}
    planned = {path: f"a bool mask of shape {shape}" for path, shape in plan.shapes.items()}
    for path in [*planned, *there]:
        mask = there.get(path)
        found = "no mask" if mask is None else f"a {mask.dtype} mask of shape {jnp.shape(mask)}"
        wanted = planned.get(path, "no mask")
        if found != wanted:
            raise ValueError(
                f"{asker} needs masks that fit its plan: {path} has {found} in the state and "
                f"{wanted} in the plan; {hint}."
            )


def check_masks(masks: Any, plan: Plan) -> None:
    """Raise a ValueError naming the first leaf whose mask is not one of its pattern.

    The masks must be concrete and fit the plan (`check_layout`). See `check_mask`.
    """
    by_path = dict(leaves_with_paths(masks))
    for leaf in plan.leaves:
        check_mask(leaf, take(leaf, by_path[leaf.array_path]))


def check_mask(leaf: PlanLeaf, mask: Any) -> None:
    """Raise a ValueError when the mask is not one that the leaf's pattern has on its way.

    Some patterns hold only at the target: halfway there N:M groups keep more than n. So a mask may
    fail the pattern's check where the pattern's own mask of the same sparsity fails it, too.
    """
    kept = np.asarray(mask)
    try:
        leaf.pattern.check(kept, leaf.path)
    except ValueError:
        sparsity = 1.0 - kept.sum() / max(kept.size, 1)
        highest = leaf.pattern.max_sparsity(leaf.shape)
        own = leaf.pattern.mask(jnp.zeros(leaf.shape), float(min(sparsity, highest)))
        try:
            leaf.pattern.check(np.asarray(own))
        except ValueError:
            return
        raise


def _words(leaf: PlanLeaf | None) -> str:
    if leaf is None:
        return "dense"
    return f"{leaf.pattern} of shape {leaf.shape} at sparsity {leaf.sparsity:g}"
