"""ADMM: training drawn towards a set, by a projection onto it every so many steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sparsejax.doors import PLAN, checked
from sparsejax.patterns.stacked import map_slices
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths

Projection = Callable[[str, Float[Array, "..."]], Float[Array, "..."] | None]


class ADMMState(NamedTuple):
    """Targets Z = P(W + U) and scaled duals U, MaskedNode where a leaf is free; strength rho."""

    targets: Any
    duals: Any
    rho: Float[Array, ""]
    step: Int[Array, ""]


def admm(
    projection: Projection,
    *,
    every: int,
    rho: float = 1e-3,
    growth: float = 2.0,
    max_rho: float = 1.0,
    end: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optax transform that adds rho (W - Z + U) to the gradients: ADMM under any optimizer.

    min L(W) with W in a set S becomes min L(W) + rho/2 |W - Z + U|^2 by gradient steps, and every
    so many of them Z = P(W + U), then U = U + W - Z, where P projects onto S. It comes before the
    optimizer, `optax.chain(admm(onto_patterns(plan), every=500, end=5_000), optax.adam(1e-3))`.
    Then W is near S: prune it (`one_shot(at=5_000)`) and train on with the masks.

    Args:
      projection: `f(path, weights) -> the nearest weights in the set`, or None for a leaf that is
        free: `onto_patterns(plan)`, `onto_unified(plan)` or your own.
      every: steps from one projection to the next. Z starts as P(W), U as 0.
      rho: the first strength.
      growth: rho is multiplied by it after each projection; U is divided by it, as it stands for
        the dual / rho.
      max_rho: where the growth ends.
      end: the step from which the gradients are left alone; None for no end.

    Raises:
      ValueError: an option is out of range, or `update` is called without params.

    Reference: Boyd et al., "Distributed Optimization and Statistical Learning via the Alternating
    Direction Method of Multipliers", 2011, sections 3.1.1 and 3.4.1; on weights: Zhang et al., "A
    Systematic DNN Weight Pruning Framework using Alternating Direction Method of Multipliers",
    ECCV 2018, arXiv 1804.03294, section 3.
    """
    if every < 1 or not 0 < rho <= max_rho or growth < 1:
        raise ValueError(
            "admm needs every >= 1, 0 < rho <= max_rho and growth >= 1, got "
            f"every={every}, rho={rho}, max_rho={max_rho}, growth={growth}."
        )

    def init(params: Any) -> ADMMState:
        def start(path: str, weights: Any) -> Any:
            target = projection(path, weights.astype(jnp.float32))
            return optax.MaskedNode() if target is None else target

        targets = map_with_paths(start, params)
        duals = _map(jnp.zeros_like, targets)
        return ADMMState(targets, duals, jnp.float32(rho), jnp.zeros((), jnp.int32))

    def turn(state: ADMMState, params: Any) -> ADMMState:
        sums = _map(lambda dual, weights: dual + weights, state.duals, params)
        nearest = lambda path, leaf: leaf if is_masked_node(leaf) else projection(path, leaf)
        targets = map_with_paths(nearest, sums)
        raised = jnp.minimum(state.rho * growth, max_rho)
        duals = _map(lambda target, own: (own - target) * (state.rho / raised), targets, sums)
        return state._replace(targets=targets, duals=duals, rho=raised)

    def update(
        updates: Any, state: ADMMState, params: Any = None, **extra: Any
    ) -> tuple[Any, ADMMState]:
        del extra
        if params is None:
            raise ValueError("admm needs the params: call tx.update(grads, state, params).")
        due = (state.step > 0) & (state.step % every == 0)
        state = jax.lax.cond(due, turn, lambda state, params: state, state, params)
        strength = state.rho if end is None else jnp.where(state.step < end, state.rho, 0.0)

        def pull(target: Any, dual: Any, weights: Any, update: Any) -> Any:
            if is_masked_node(target):
                return update
            return update + (strength * (weights - target + dual)).astype(update.dtype)

        updates = jax.tree.map(
            pull, state.targets, state.duals, params, updates, is_leaf=is_masked_node
        )
        return updates, state._replace(step=optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init, update)


@checked(plan=PLAN)
def onto_patterns(plan: Plan) -> Projection:
    """The projection of each planned leaf onto its pattern at its target: the rest becomes 0.

    The groups with the most energy, the sum of w^2, stay: no other choice is nearer.

    Reference: Zhang et al., "A Systematic DNN Weight Pruning Framework using Alternating Direction
    Method of Multipliers", ECCV 2018, arXiv 1804.03294, section 3.3.
    """

    def nearest(leaf: PlanLeaf, weights: Float[Array, "..."]) -> Float[Array, "..."]:
        kept = leaf.pattern.mask(weights**2, leaf.sparsity)
        return jnp.where(kept, weights, jnp.zeros((), weights.dtype))

    return leafwise_projection(plan, nearest)


def leafwise_projection(plan: Plan, nearest: Callable[[PlanLeaf, Any], Any]) -> Projection:
    """The projection of each planned leaf by `nearest(leaf, weights)`; other leaves are free."""

    def project(path: str, weights: Float[Array, "..."]) -> Float[Array, "..."] | None:
        leaves = plan.slices(path)
        return map_slices(nearest, leaves, weights) if leaves else None

    return project


def admm_residual(params: Any, opt_state: Any) -> Float[Array, ""]:
    """|W - Z| / |W| over the leaves that `admm` draws: 0 when they have arrived in the set.

    Raises:
      ValueError: there is no ADMMState in opt_state, or several.

    Reference: Boyd et al., "Distributed Optimization and Statistical Learning via the Alternating
    Direction Method of Multipliers", 2011, section 3.3: the primal residual.
    """
    is_state = lambda node: isinstance(node, ADMMState)
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
    if len(found) != 1:
        raise ValueError(
            f"admm_residual needs an optimizer state with one ADMMState, found {len(found)}; "
            "pass the state of an optimizer that has admm in its chain."
        )
    targets = dict(leaves_with_paths(found[0].targets))  # nnx.Optimizer boxes them
    drawn = [
        (leaf.astype(jnp.float32), targets[path])
        for path, leaf in leaves_with_paths(params)
        if not is_masked_node(targets[path])
    ]
    apart = optax.tree.norm([weights - target for weights, target in drawn])
    return apart / jnp.maximum(optax.tree.norm([weights for weights, _ in drawn]), 1e-12)


def _map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree of f, where the first tree has a MaskedNode this one has too."""
    at = lambda leaf, *others: leaf if is_masked_node(leaf) else f(leaf, *others)
    return jax.tree.map(at, tree, *rest, is_leaf=is_masked_node)
