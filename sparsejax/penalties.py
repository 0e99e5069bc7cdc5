"""Penalties on weights, and the optax transform that adds their gradients to the updates."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sparsejax.doors import Need, checked
from sparsejax.plans.rules import check_regex
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths


class Penalty(NamedTuple):
    """A pair of pure functions: `init(params) -> scalars` and `value(params, scalars) -> scalar`.

    `scalars` are the penalty's own learnable numbers, one per leaf in the tree of the params, or
    () when it has none. Both functions leave out MaskedNode leaves. All values are float32.
    """

    init: Callable[[Any], Any]
    value: Callable[[Any, Any], Float[Array, ""]]


PENALTY = Need(
    "a penalty",
    lambda thing: isinstance(thing, Penalty),
    "pass sj.linf() or sj.penalties.kure(), say",
)


class PenaltyState(NamedTuple):
    """The learnable scalars of a penalty and the state of their own optimizer."""

    scalars: Any
    optimizer_state: Any


def linf() -> Penalty:
    """The range penalty `sum over leaves of max|w|`; equal maxima share the gradient.

    Reference: Kundu et al., "R2 Loss: Range Restriction Loss for Model Compression and
    Quantization", 2023, arXiv 2303.08253, section 3.
    """
    # sign(w) w and not abs(w): JAX takes the slope of abs at 0 to be 1.
    return _per_leaf(lambda weights: jnp.max(jnp.sign(weights) * weights))


def margin(initial_stds: float = 2.0) -> Penalty:
    """The margin penalty `sum over leaves of |M| + sum max(|w| - |M|, 0)`, M learnable.

    The sum, not the mean: dR/dM = 1 - #{|w| > |M|}, so M settles where about one weight of the
    leaf is outside; with the mean M would fall to 0 and the penalty become a plain L1.

    Args:
      initial_stds: M starts at this many standard deviations of the leaf.

    Reference: Kundu et al., "R2 Loss", 2023, arXiv 2303.08253, section 3.
    """

    def value(weights: Float[Array, "..."], limit: Float[Array, ""]) -> Float[Array, ""]:
        limit = jnp.abs(limit)
        return limit + jnp.sum(jax.nn.relu(jnp.abs(weights) - limit))

    return _per_leaf(value, lambda weights: initial_stds * jnp.std(weights))


def soft_min_max(temperature: float | None = None, *, learnable: bool = True) -> Penalty:
    """The soft range `sum over leaves of s_max - s_min + exp(-a)`, a learnable.

    s_max = sum(w exp(a w)) / sum(exp(a w)), s_min the same with -a. exp(-a) keeps a from falling
    to 0, where the soft range vanishes. Exponents are taken in float32 whatever the weights are.
    A learnable a drifts, slowly, to the minimum near ln(1 / (2 var(w))), where the penalty hardly
    sees a single outlier; `learnable=False` or a slow scalars optimizer keeps it from there.

    Args:
      temperature: the initial a; None is 5 / std(w) of each leaf.
      learnable: whether a receives gradients.

    Reference: Kundu et al., "R2 Loss", 2023, arXiv 2303.08253, section 3.
    """

    def init(weights: Float[Array, "..."]) -> Float[Array, ""]:
        if temperature is not None:
            return jnp.asarray(temperature, jnp.float32)
        return 5.0 / jnp.maximum(jnp.std(weights), 1e-6)

    def value(weights: Float[Array, "..."], alpha: Float[Array, ""]) -> Float[Array, ""]:
        alpha = alpha if learnable else jax.lax.stop_gradient(alpha)
        weights = weights.ravel()
        soft_max = jnp.sum(weights * jax.nn.softmax(alpha * weights))
        soft_min = jnp.sum(weights * jax.nn.softmax(-alpha * weights))
        return soft_max - soft_min + jnp.exp(-alpha)

    return _per_leaf(value, init)


def kure(target: float = 1.8) -> Penalty:
    """The kurtosis penalty `sum over leaves of (kurtosis(w) - target)^2`; 1.8 is a uniform law's.

    Reference: Chmiel et al., "Robust Quantization: One Model to Rule Them All", NeurIPS 2020,
    arXiv 2002.07686, equation 8.
    """

    def value(weights: Float[Array, "..."]) -> Float[Array, ""]:
        centred = weights - jnp.mean(weights)
        variance = jnp.mean(centred**2)
        variance = jnp.where(variance > 1e-15, variance, 1.0)  # a constant leaf has no slope
        return (jnp.mean(centred**4) / variance**2 - target) ** 2

    return _per_leaf(value)


def group_lasso(axis: int | tuple[int, ...] = -1) -> Penalty:
    """The group lasso `sum over leaves and groups of sqrt(group size) * ||w_group||_2`.

    A group is everything that shares its index on `axis`: the output channels of a flax kernel by
    default. A group that is zero has gradient zero.

    Reference: Yuan and Lin, "Model Selection and Estimation in Regression with Grouped
    Variables", JRSS B 2006, equation 2.1; on channels: Wen et al., NeurIPS 2016, arXiv 1608.03665.
    """
    kept = (axis,) if isinstance(axis, int) else axis

    def value(weights: Float[Array, "..."]) -> Float[Array, ""]:
        own = {index % weights.ndim for index in kept}
        within = tuple(index for index in range(weights.ndim) if index not in own)
        squares = jnp.sum(weights**2, axis=within)
        group_size = weights.size / max(squares.size, 1)
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
        return group_size**0.5 * jnp.sum(norms)

    return _per_leaf(value)


@checked(penalty=PENALTY)
def add_penalty(
    penalty: Penalty,
    strength: float,
    *,
    where: str | Callable[[str], bool] | None = None,
    scalars_optimizer: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optax transform that adds `strength * d penalty / d params` to the updates.

    Like `optax.add_decayed_weights`, it comes before the optimizer: `optax.chain(
    sj.add_penalty(sj.linf(), 0.01), optax.adamw(1e-3))`. The penalty's learnable scalars live in
    its state and take steps of their own optimizer, which sees no weight decay.

    Args:
      penalty: such as `linf()`.
      strength: >= 0.
      where: a regular expression (`re.search`) or a predicate on normalised paths; None takes
        every leaf with two or more axes, which leaves out biases and the scales of norms.
      scalars_optimizer: for the learnable scalars; None is `optax.adam(1e-3)`.

    Raises:
      ValueError: no leaf matches `where`, or `update` is called without params.
    """
    chosen = _chooser(where)
    inner = optax.adam(1e-3) if scalars_optimizer is None else scalars_optimizer

    def init(params: Any) -> PenaltyState:
        scalars = penalty.init(chosen(params))
        return PenaltyState(scalars, inner.init(scalars))

    def update(
        updates: Any, state: PenaltyState, params: Any = None, **extra: Any
    ) -> tuple[Any, PenaltyState]:
        del extra
        if params is None:
            raise ValueError("add_penalty needs the params: call tx.update(grads, state, params).")
        gradients = jax.grad(penalty.value, argnums=(0, 1))(chosen(params), state.scalars)
        own, scalar_gradients = gradients
        updates = jax.tree.map(
            lambda update, g: update if is_masked_node(g) else update + _cast(strength * g, update),
            updates,
            own,
        )
        scalar_gradients = jax.tree.map(lambda g: strength * g, scalar_gradients)
        steps, optimizer_state = inner.update(
            scalar_gradients, state.optimizer_state, state.scalars
        )
        scalars = optax.apply_updates(state.scalars, steps)
        return updates, PenaltyState(scalars, optimizer_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _chooser(where: str | Callable[[str], bool] | None) -> Callable[[Any], Any]:
    """A function that puts a MaskedNode for each leaf that is not meant."""
    if isinstance(where, str):
        check_regex("add_penalty", where, 'pass where=".*kernel", say')
    matches = re.compile(where).search if isinstance(where, str) else where

    def choose(path: str, leaf: Any) -> Any:
        wanted = jnp.ndim(leaf) >= 2 if matches is None else matches(path)
        return leaf if wanted else optax.MaskedNode()

    def chosen(params: Any) -> Any:
        leaves = leaves_with_paths(params)
        if leaves and all(is_masked_node(choose(path, leaf)) for path, leaf in leaves):
            names = ", ".join(path for path, _ in leaves[:8])
            raise ValueError(f"add_penalty(where={where!r}) matches no leaf; there are {names}.")
        # A map and not a list: optax.tree.map_params calls init on a placeholder without leaves.
        return map_with_paths(choose, params)

    return chosen


def _cast(values: Any, like: Any) -> Any:
    return jnp.asarray(values).astype(jnp.asarray(like).dtype)


def _per_leaf(
    value: Callable[..., Float[Array, ""]],
    init: Callable[[Float[Array, "..."]], Float[Array, ""]] | None = None,
) -> Penalty:
    """The penalty that sums `value(weights[, scalar])` over the leaves, all in float32."""

    def init_tree(params: Any) -> Any:
        if init is None:
            return ()
        return jax.tree.map(lambda leaf: init(leaf.astype(jnp.float32)), params)

    def value_tree(params: Any, scalars: Any) -> Float[Array, ""]:
        rest = () if init is None else (scalars,)
        terms = jax.tree.map(
            lambda leaf, *own: value(leaf.astype(jnp.float32), *own), params, *rest
        )
        return sum(jax.tree.leaves(terms), jnp.zeros((), jnp.float32))

    return Penalty(init_tree, value_tree)
