"""Whether weights and optimizer state fit together: what went wrong in a training, by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from sparsejax.flax_bridge import is_module, weights_of
from sparsejax.masks.mask_checks import check_layout, check_mask, check_plans
from sparsejax.patterns.stacked import take
from sparsejax.plans.plan import Plan
from sparsejax.text import wrapped
from sparsejax.training.opt_states import SparsifyState, states_of
from sparsejax.tree import is_masked_node, leaves_with_paths

_SHOWN = 3
_ANEW = "the state was made with another plan: make it anew with this one"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        name: which it is, such as "nonzero" or "target".
        paths: the leaves that show it.
        message: what is the matter and what to do, in a sentence.
    """

    name: str
    paths: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        """The message."""
        return self.message


@dataclass(frozen=True)
class Check:
    """All findings; true if there are none."""

    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def __str__(self) -> str:
        """A sentence for each finding, in lines of 80 columns."""
        lines = [wrapped(f"! {finding}") for finding in self.findings]
        return "\n".join(lines) or "Masks, weights and plan fit together."


def check(params: Any, opt_state: Any, *, plan: Plan | None = None) -> Check:
    """What does not fit together after a training, each with what to do; true if all is well.

    It compares the masks with the weights that are really 0, with the plan's targets and patterns,
    and looks at how `sparsify` was used. `report(params, plan, opt_state)` shows the same lines.

    Args:
      params: the trained weights: any pytree, an Equinox or an NNX module. Under a method that
        keeps pruned weights underneath, the raw or the hardened ones.
      opt_state: the optimizer's state after the last step, or what holds it.
      plan: the one that the training should have; None asks the state.

    Returns:
      A Check. The names of its findings are "plan" (the state is of another one), "masks" (they
      are not on the leaves of the state's plan), "leaves" (weights and state are of different
      networks), "nonzero" (pruned weights are not 0), "forward" (the loss was not computed at
      `forward(params, opt_state)`), "target" (fewer weights are pruned than planned) and
      "pattern" (masks that the plan's pattern does not allow).

    Raises:
      ValueError: there is no SparsifyState in opt_state, or several that mask the same leaf.

    Example:
      >>> tx = sj.sparsify(tx, method, plan, key=key)
      >>> print(sj.check(params, tx.init(params)))
    """
    states = states_of(opt_state, "check")
    weights = dict(leaves_with_paths(weights_of(params) if is_module(params) else params))
    findings = list(_of_plan(states, plan))
    for state in states:
        if misplaced := list(_of_layout(state)):
            findings += misplaced
            continue
        masks = {
            path: np.asarray(mask)
            for path, mask in leaves_with_paths(state.masks)
            if not is_masked_node(mask)
        }
        findings += _of_leaves(weights, masks)
        if not any(finding.name == "leaves" for finding in findings):
            findings += _of_zeros(weights, masks, state, opt_state)
        findings += _of_forward(state)
        findings += _of_targets(masks, state)
        findings += _of_patterns(masks, state)
    return Check(tuple(findings))


def _of_plan(states: list[SparsifyState], plan: Plan | None) -> Iterator[Finding]:
    if plan is not None:
        ours = {leaf.path for leaf in plan.leaves}
        meant = [s for s in states if ours & {leaf.path for leaf in s.reparam.plan.leaves}]
        hint = "pass the plan that sparsify was given"
        try:  # of several under optax.partition a plan may be one's or all of theirs
            check_plans(meant or states, plan, asker="check", hint=hint)
        except ValueError as error:
            yield Finding("plan", (), str(error))


def _of_layout(state: SparsifyState) -> Iterator[Finding]:
    try:
        check_layout(state.masks, state.reparam.plan, asker="check", hint=_ANEW)
    except ValueError as error:
        yield Finding("masks", (), str(error))


def _of_leaves(weights: Any, masks: Any) -> Iterator[Finding]:
    def fits(path: str) -> bool:
        return path in weights and np.shape(weights[path]) == masks[path].shape

    lost = tuple(path for path in masks if not fits(path))
    if lost:
        fast = any(path.startswith("fast/") for path in weights)
        hint = "of optax.lookahead pass params.slow" if fast else "pass those that it trained"
        yield Finding(
            "leaves",
            lost,
            f"The optimizer state masks {_list(lost)}, which the params lack or have in another "
            f"shape: {hint}.",
        )


def _of_zeros(weights: Any, masks: Any, state: SparsifyState, opt_state: Any) -> Iterator[Finding]:
    reparam = state.reparam.reparam
    if reparam is not None and reparam.keeps_pruned:
        return
    left = {path: np.sum(np.asarray(weights[path])[~mask] != 0) for path, mask in masks.items()}
    broken = tuple(path for path, count in left.items() if count)
    if not broken:
        return
    pruned = sum(int(np.sum(~masks[path])) for path in broken)
    count = f"{sum(map(int, left.values())):,} of {pruned:,} pruned weights are not 0 in"
    if any(np.any(np.isnan(np.asarray(weights[path])[~masks[path]])) for path in broken):
        why = "some are NaN: the training diverged before they were pruned; lower its rate"
    elif _has(opt_state, optax.LookaheadState):
        why = (
            "optax.lookahead averages pruned and unpruned weights: deploy "
            "sj.harden(params.slow, opt_state)"
        )
    elif _followed_by_others(opt_state, state):
        why = (
            "other transforms change the updates after sparsify in optax.chain: put them inside, "
            "sj.sparsify(optax.chain(...), ...)"
        )
    else:
        why = (
            "averaged, looked-ahead or rolled-back weights, or a state of another step: deploy "
            "sj.harden(params, opt_state), and roll params and opt_state back together"
        )
    yield Finding("nonzero", broken, f"{count} {_list(broken)}: {why}.")


def _of_forward(state: SparsifyState) -> Iterator[Finding]:
    blind = [int(count) for count in jax.tree.leaves(state.reparam.num_blind)]
    if any(blind):
        steps = int(jax.tree.leaves(state.step)[0])
        yield Finding(
            "forward",
            (),
            f"{blind[0]:,} of {steps:,} updates took gradients that were not computed at the "
            "forward weights, so that what harden gives was never trained: compute the loss at "
            "sj.forward(params, opt_state).",
        )


def _of_targets(masks: Any, state: SparsifyState) -> Iterator[Finding]:
    """Leaves may differ from their own targets where a method has one budget for all of them."""
    plan, steps = state.reparam.plan, int(jax.tree.leaves(state.step)[0])
    pruned = {x.path: int(np.sum(~take(x, masks[x.array_path]))) for x in plan.leaves}
    missing = plan.num_pruned - sum(pruned.values())
    # A budget of the whole network is met to a group of each leaf.
    shared = any(pruned[leaf.path] > leaf.num_pruned for leaf in plan.leaves)
    slack = sum(leaf.group_size for leaf in plan.leaves) if shared else 0
    if missing <= slack or not steps:
        return
    short = tuple(leaf.path for leaf in plan.leaves if pruned[leaf.path] < leaf.num_pruned)
    if state.reparam.learned and not any(pruned.values()):
        why = "no learned threshold has passed a weight: raise the decay or the rate of learned_tx"
    else:
        why = (
            f"let the ramp of the method end before the last step, which was {steps - 1} (the "
            f"first is 0); if its sparsity is an outcome of the training, steer it by exact_from"
        )
    yield Finding(
        "target",
        short,
        f"{sum(pruned.values()):,} of the {plan.num_pruned:,} weights that the plan wants are "
        f"pruned after {steps:,} steps, too few in {_list(short)}: {why}.",
    )


def _of_patterns(masks: Any, state: SparsifyState) -> Iterator[Finding]:
    for leaf in state.reparam.plan.leaves:
        try:
            check_mask(leaf, take(leaf, masks[leaf.array_path]))
        except ValueError as error:
            yield Finding("pattern", (leaf.path,), f"{str(error).rstrip('.')}; {_ANEW}.")


def _followed_by_others(opt_state: Any, state: SparsifyState) -> bool:
    """Does a state of another transform come after this one in the tuple of an optax.chain?"""
    holds = lambda tree: any(
        node is state
        for node in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, SparsifyState))
    )
    is_chain = lambda node: type(node) is tuple and any(map(holds, node[:-1]))
    return any(map(is_chain, jax.tree.leaves(opt_state, is_leaf=is_chain)))


def _has(opt_state: Any, kind: type) -> bool:
    own = lambda node: isinstance(node, kind)
    return any(map(own, jax.tree.leaves(opt_state, is_leaf=own)))


def _list(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
