"""Quantizers are Reparams of single leaves: this makes one of functions on the kept weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sparsejax.plans.planned_leaves import map_params
from sparsejax.reparams.reparam import Reparam, map_weights, nothing_learned

TINY = 1e-12


def leafwise(
    forward: Callable[..., Float[Array, "..."]],
    init: Callable[[Float[Array, "..."]], Float[Array, "..."]] | None = None,
    *,
    refresh: Callable[..., Float[Array, "..."]] | None = None,
    harden: Callable[..., Float[Array, "..."]] | None = None,
) -> Reparam:
    """The Reparam that quantizes each planned leaf by itself, in float32.

    Pruned weights are exactly 0 in the forward pass, and their gradient passes as it is: methods
    that regrow look at it.

    Args:
      forward: `f(weights, mask[, learned]) -> quantized weights`; its gradient is the method's.
        What it gives at pruned weights is left out.
      init: `f(weights) -> learned` of a leaf; None if nothing is learned. Zeros count as pruned.
      refresh: `f(weights, mask, learned) -> learned`; what it makes, no gradient trains.
      harden: `f(weights, mask, learned) -> weights`, where it is not `forward`.
    """

    def on_kept(f: Callable[..., Any]) -> Callable[..., Any]:
        def at(leaf: Any, weights: Any, mask: Any, *own: Any) -> Any:
            values = f(weights.astype(jnp.float32), mask, *own).astype(weights.dtype)
            # 0 with the slope 1.
            return jnp.where(mask, values, weights - jax.lax.stop_gradient(weights))

        def apply(params: Any, masks: Any, learned: Any, context: Any) -> Any:
            rest = () if init is None else (learned,)
            return map_weights(at, context, params, masks, *rest)

        return apply

    def start(params: Any, context: Any) -> Any:
        assert init is not None
        return map_params(lambda leaf, w: init(w.astype(jnp.float32)), context.plan, params)

    def renew(params: Any, masks: Any, learned: Any, context: Any) -> Any:
        assert refresh is not None
        at = lambda leaf, own, mask, w: refresh(w.astype(jnp.float32), mask, own)
        return map_weights(at, context, learned, masks, params)

    return Reparam(
        nothing_learned if init is None else start,
        on_kept(forward),
        None if harden is None else on_kept(harden),
        None if refresh is None else renew,
        trains=refresh is None,
    )


def check_bits(name: str, bits: int, lowest: int) -> None:
    """Raise a ValueError when the method has no grid of so many bits."""
    if not lowest <= bits <= 16:
        raise ValueError(f"{name} needs {lowest} <= bits <= 16, got {bits}; choose such bits.")


def kept_mean(values: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """The mean over the kept weights, 0 if there are none."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1).astype(
        values.dtype
    )


@jax.custom_jvp
def round_through(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x rounded to integers, ties to even, with the slope 1: the straight-through estimator."""
    return jnp.round(x)


@round_through.defjvp
def _round_through_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    return jnp.round(primals[0]), tangents[0]
