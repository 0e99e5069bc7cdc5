"""Reweighted group lasso: a penalty that drives weak groups of a pattern to zero by itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sparsejax.doors import PLAN, checked
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.plans.planned_leaves import map_params
from sparsejax.tree import is_masked_node


class ReweightedState(NamedTuple):
    """The strength at each weight, MaskedNode where a leaf is free, and the step."""

    strengths: Any
    step: Int[Array, ""]


@checked(plan=PLAN)
def reweighted(
    plan: Plan,
    strength: float,
    *,
    every: int,
    epsilon: float = 1e-3,
    end: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optax transform that adds the gradient of a reweighted group lasso to the updates.

    The penalty is weight * sum over groups of a_g |w_g|^2 with a_g = 1 / (|w_g|^2 + epsilon), held
    fixed for `every` steps at a time: small groups are pushed harder and harder, large ones hardly,
    so that the sum tends to count the groups that are not zero. Groups are those of the plan's
    patterns; of `BlockColumnRow` both the columns and the rows of each block. It comes before the
    optimizer, as `optax.add_decayed_weights`; then prune (`one_shot`) and train on with the masks.

    Args:
      plan: names the leaves and their patterns.
      strength: lambda, >= 0.
      every: steps from one reweighting to the next; the first is at the start.
      epsilon: bounds the push on groups near zero.
      end: the step from which the gradients are left alone; None for no end.

    Raises:
      ValueError: an option is out of range, or `update` is called without params.

    Example:
      >>> pull = sj.structured.reweighted(plan, 1e-4, every=100, end=1_000)
      >>> tx = optax.chain(pull, optax.adam(1e-3))
      >>> tx = sj.sparsify(tx, sj.one_shot(1_000), plan, key=key)

    Reference: Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted
    Regularization Method", 2020, arXiv 2001.08357; Candes, Wakin, Boyd, "Enhancing Sparsity by
    Reweighted l1 Minimization", 2008, section 2.
    """
    if every < 1 or strength < 0 or epsilon <= 0:
        raise ValueError(
            "reweighted needs every >= 1, strength >= 0 and epsilon > 0, got "
            f"every={every}, strength={strength}, epsilon={epsilon}."
        )

    def of_leaf(leaf: PlanLeaf, weights: Any) -> Any:
        squares = jnp.square(weights.astype(jnp.float32))

        def logarithm(squares: Float[Array, "..."]) -> Float[Array, ""]:
            energies = [jnp.asarray(p.group_scores(squares)) for p in leaf.pattern.factors()]
            return sum((jnp.log(e + epsilon).sum() for e in energies), jnp.zeros((), jnp.float32))

        return jax.grad(logarithm)(squares)  # 1 / (energy + epsilon) of each group it is in

    def init(params: Any) -> ReweightedState:
        return ReweightedState(map_params(of_leaf, plan, params), jnp.zeros((), jnp.int32))

    def update(
        updates: Any, state: ReweightedState, params: Any = None, **extra: Any
    ) -> tuple[Any, ReweightedState]:
        del extra
        if params is None:
            raise ValueError("reweighted needs the params: call tx.update(grads, state, params).")
        strengths = jax.lax.cond(
            state.step % every == 0, lambda: map_params(of_leaf, plan, params), lambda: state[0]
        )
        factor = 2.0 * strength * (1.0 if end is None else (state.step < end).astype(jnp.float32))

        def push(own: Any, weights: Any, update: Any) -> Any:
            if is_masked_node(own):
                return update
            return update + (factor * own * weights).astype(update.dtype)

        updates = jax.tree.map(push, strengths, params, updates, is_leaf=is_masked_node)
        return updates, ReweightedState(strengths, optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init, update)
