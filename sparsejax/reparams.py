"""Forward reparametrisations: what a forward pass uses in place of the raw weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.tree import is_masked_node


class Reparam(NamedTuple):
    """A pair of functions: `init(params) -> state` and `apply(params, masks, state) -> weights`.

    The raw weights stay dense underneath, so that a pruned weight keeps its value and gradient and
    may come back. `masks` holds a MaskedNode where a leaf is dense.
    """

    init: Callable[[Any], Any]
    apply: Callable[[Any, Any, Any], Any]


def straight_through() -> Reparam:
    """The straight-through estimator: forward `w * mask`, backward as if there were no mask.

    d loss / d w is taken to be d loss / d (w * mask), for kept and pruned weights alike.

    Example:
      >>> method = sj.gmp(begin=0, end=1_000, every=1, regrow=True)
      >>> tx = sj.sparsify(tx, method, plan, key=key, reparam=sj.straight_through())
      >>> loss = lambda params: model_loss(sj.effective(params, opt_state))

    Reference: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic
    Neurons", 2013, arXiv 1308.3432; on masks: Jayakumar et al., "Top-KAST", NeurIPS 2020,
    arXiv 2106.03517, section 2.
    """
    return _STRAIGHT_THROUGH


def _apply_straight_through(params: Any, masks: Any, state: Any) -> Any:
    del state
    return jax.tree.map(
        lambda weights, mask: weights if is_masked_node(mask) else _masked(weights, mask),
        params,
        masks,
    )


@jax.custom_jvp
def _masked(weights: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(mask, weights, jnp.zeros((), weights.dtype))


@_masked.defjvp
def _masked_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _masked(*primals), tangents[0]


# One object for all calls: optimizer states made by two factories must have equal tree structures.
_STRAIGHT_THROUGH = Reparam(init=lambda params: (), apply=_apply_straight_through)
