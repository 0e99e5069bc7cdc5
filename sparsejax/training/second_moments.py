"""What an optimizer's second moments hold at pruned weights, and which of its state they are."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from sparsejax.doors import Need

SecondMoments = Callable[[Float[Array, "..."], Bool[Array, "..."]], Float[Array, "..."]]
SECOND_MOMENTS = Need(
    "second moments of pruned weights as a function of the moments and the mask",
    callable,
    "pass sj.training.zeroed_moments, decaying_moments or averaged_moments",
)
_SIDE = 4  # of the stand-ins: enough for rows, columns and both signs
_MAX_STEPS = 100  # until each moment has shown a sign; optax.MultiSteps waits for its last one


def zeroed_moments(moments: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """Zeros where the mask prunes: nothing of a weight's past is left when it is regrown.

    Adam counts its steps over the network, so that it takes these zeros for a long average: late in
    a training the first step of a regrown weight is (1 - b1) / sqrt(1 - b2) = 3.2 learning rates.
    """
    return jnp.where(mask, moments, jnp.zeros((), moments.dtype))


def decaying_moments(moments: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """The moments as they are: at a pruned weight, whose gradients are 0, the optimizer's decay.

    It remembers a weight that comes back soon, as in the phases of AC/DC, and has nothing to
    remember of one that was never there, as those that SET and RigL grow first.
    """
    del mask
    return moments


def averaged_moments(moments: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    """The mean of the leaf's kept weights where the mask prunes: regrown, one starts as they stand.

    So its first step is (1 - b1) |g| over the root mean square of the leaf's gradients, whenever it
    comes and wherever it was.
    """
    wide = moments.astype(jnp.promote_types(moments.dtype, jnp.float32))
    mean = jnp.sum(wide, where=mask) / jnp.maximum(jnp.sum(mask), 1).astype(wide.dtype)
    return jnp.where(mask, moments, mean.astype(moments.dtype))


class MomentRule(NamedTuple):
    """The rule, and by the path of each leaf of the optimizer's state whether it is under it.

    True for a second moment, False for what has a direction, None for what stayed at zero.
    """

    fill: SecondMoments
    is_second: Mapping[Any, bool | None]

    def at(self, path: tuple[Any, ...], leaf: Any, mask: Any) -> Any:
        """The leaf of the state with the rule applied, or None if it is no second moment.

        Raises:
          ValueError: it cannot be told.
        """
        second = self.is_second.get(path)
        if second is None:
            raise ValueError(
                "sparsify needs to tell second moments from first ones to fill them by "
                f"{getattr(self.fill, '__name__', self.fill)}, and {jax.tree_util.keystr(path)} of "
                f"the optimizer's state shows no sign in {_MAX_STEPS} steps; leave second_moments "
                "at sj.training.zeroed_moments."
            )
        if not second:
            return None
        if mask.shape == leaf.shape:
            return self.fill(leaf, mask)
        return jax.vmap(self.fill, in_axes=(0, None))(leaf, mask)


def moment_rule(
    tx: optax.GradientTransformationExtraArgs, fill: SecondMoments, params: Any, extra: Any
) -> MomentRule:
    """The rule for this optimizer: what its state holds is seen in steps on small stand-ins.

    Params and gradients are random numbers, then the same with the other sign. A moment that is
    never negative in both runs is one of squares or sizes, a second moment, whatever its optimizer
    calls it; one that takes both signs has a direction, as gradients, momenta and weights have.

    Raises:
      ValueError: the optimizer does not run on them.
    """
    if fill is zeroed_moments:
        return MomentRule(fill, {})
    random = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(random.normal(size=_shape(leaf)), leaf.dtype)
    small = lambda leaf: jnp.ones(_shape(leaf), leaf.dtype) if hasattr(leaf, "dtype") else leaf
    lowest: dict[Any, float] = {}
    highest: dict[Any, float] = {}
    try:
        with jax.ensure_compile_time_eval():
            own, extra = jax.tree.map(draw, params), jax.tree.map(small, extra)
            step = jax.jit(lambda grads, state, params: tx.update(grads, state, params, **extra)[1])
            params_of = [own, jax.tree.map(jnp.negative, own)]
            states = [tx.init(params) for params in params_of]
            for _ in range(_MAX_STEPS):
                grads = jax.tree.map(draw, own)
                grads_of = [grads, jax.tree.map(jnp.negative, grads)]
                states = [step(*one) for one in zip(grads_of, states, params_of, strict=True)]
                _note(states, lowest, highest)
                if all(lowest[path] or highest[path] for path in lowest):
                    break
    except Exception as error:
        raise ValueError(
            f"sparsify needs an optimizer that runs on small stand-ins of the params to fill its "
            f"second moments by {getattr(fill, '__name__', fill)}, this one says: {error}; leave "
            "second_moments at sj.training.zeroed_moments."
        ) from error
    sign = {path: None if not (low or highest[path]) else low >= 0 for path, low in lowest.items()}
    return MomentRule(fill, sign)


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(min(side, _SIDE) for side in jnp.shape(leaf))


def _note(states: Any, lowest: dict[Any, float], highest: dict[Any, float]) -> None:
    """The range of each leaf of some states, widened."""
    flat = [pair for state in states for pair in jax.tree_util.tree_flatten_with_path(state)[0]]
    for path, leaf in flat:
        if jnp.size(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            values = np.asarray(leaf).real.astype(np.float64)
            lowest[path] = min(lowest.get(path, 0.0), float(values.min()))
            highest[path] = max(highest.get(path, 0.0), float(values.max()))
