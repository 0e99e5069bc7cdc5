"""Importance from a loss and data: functions that make params -> a tree of scores, high is kept.

What `sparsejax.scores` says of one leaf from the gradient at hand, these say of all params, from
batches of their own: before training, or at the rounds of a pruning protocol.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Loss = Callable[[Any, Any], Float[Array, ""]]
Measure = Callable[[Any], Any]


def loss_based(loss: Loss, batches: Sequence[Any]) -> Measure:
    """|w * g|: how much the loss changes when a weight goes, to first order.

    Reference: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection
    Sensitivity", ICLR 2019, arXiv 1810.02340, equation 4.
    """
    gradient = mean_gradient(loss, batches)
    return lambda params: _sensitivity(params, gradient(params))


def gradient_norm(loss: Loss, batches: Sequence[Any]) -> Measure:
    """w * (H g): by how much a weight holds the norm of the gradient up; signed.

    Reference: Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient
    Flow", ICLR 2020, arXiv 2002.07376, equation 8, with the sign turned: high is kept.
    """
    product = hessian_gradient(loss, batches)
    return lambda params: _products(params, product(params))


@jax.jit
def _products(params: Any, others: Any) -> Any:
    return jax.tree.map(jnp.multiply, params, others)


@jax.jit
def _sensitivity(params: Any, grads: Any) -> Any:
    return jax.tree.map(jnp.abs, _products(params, grads))


def mean_gradient(loss: Loss, batches: Sequence[Any]) -> Measure:
    """The gradient of the mean of `loss(params, batch)` over batches of equal shapes."""
    return _mean_over(batches, lambda params, batch: jax.grad(loss)(params, batch))


def hessian_gradient(loss: Loss, batches: Sequence[Any]) -> Measure:
    """H g of the mean loss over the batches, forward over reverse: one jvp of the gradient each."""
    gradient = mean_gradient(loss, batches)
    return lambda params: _curved(loss, batches, params, gradient(params))


def hessian_weights(loss: Loss, batches: Sequence[Any]) -> Measure:
    """H w of the mean loss over the batches."""
    return lambda params: _curved(loss, batches, params, params)


def _curved(loss: Loss, batches: Sequence[Any], params: Any, direction: Any) -> Any:
    def one(params: Any, batch: Any) -> Any:
        return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (direction,))[1]

    return _mean_over(batches, one)(params)


def _mean_over(batches: Sequence[Any], f: Callable[[Any, Any], Any]) -> Measure:
    """The mean of the trees `f(params, batch)`, one batch at a time and compiled once."""
    if not batches:
        raise ValueError("An importance needs at least one batch, got none; pass a list of them.")
    arrays = [jax.tree.map(jnp.asarray, batch) for batch in batches]

    @jax.jit  # one program, also for who calls it without jit
    def mean(params: Any, arrays: Any) -> Any:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)

        def add(total: Any, batch: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, f(params, batch)), None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), stacked)
        return jax.tree.map(lambda leaf: leaf / len(batches), total)

    return lambda params: mean(params, arrays)
