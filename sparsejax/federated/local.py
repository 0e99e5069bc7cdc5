"""What a client does between two messages: epochs of minibatch steps through an optax transform."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sparsejax.doors import LOSS, Need, checked
from sparsejax.federated.variables import Variables
from sparsejax.masks.transforms import OPTIMIZER
from sparsejax.training.opt_states import SparsifyState, effective


class LocalTraining(NamedTuple):
    """What a client does in a round, as two pure functions.

    Attributes:
        init: params -> the optimizer's state, which stays with the client from round to round.
        run: (variables, opt_state, samples, num_samples, key) -> (variables, opt_state, loss), of
            one client; the first num_samples of the samples are its own.
    """

    init: Callable[[Any], Any]
    run: Callable[..., tuple[Variables, Any, Float[Array, ""]]]


LOCAL = Need(
    "a LocalTraining",
    lambda thing: isinstance(thing, LocalTraining),
    "make it by sj.federated.local_sgd(loss, tx, epochs=..., batch_size=...)",
)


@checked(loss=LOSS, tx=OPTIMIZER)
def local_sgd(
    loss: Callable[..., Any],
    tx: optax.GradientTransformation,
    *,
    epochs: int,
    batch_size: int | None,
    has_statistics: bool = False,
) -> LocalTraining:
    """A client's training: epochs over its samples in batches of a new order each.

    The loss of a batch is the mean over its samples. The last batch of an epoch has what is left;
    its free places repeat samples of the epoch that do not count in the loss, so that padding
    never reaches the network, and batch norm sees real samples only. A client steps as often as its
    own number of samples says, whatever the length that all are padded to.

    With `sj.sparsify` as `tx` the loss is computed at `sj.forward(params, opt_state)`, and the
    masks, like all of the optimizer's state, stay with the client.

    Args:
      loss: `f(params, batch)`, a value for each sample of the batch, a pytree like the samples.
      tx: any optax transform.
      epochs: how often a client goes over its samples in a round.
      batch_size: samples in a step; None for all of them at once.
      has_statistics: the loss is `f(params, statistics, batch) -> (values, statistics)`.

    Raises:
      ValueError: epochs or batch_size is below 1, or the loss is no value for each sample.

    Example:
      >>> loss = lambda params, batch: jnp.sum(model.apply(params, batch) ** 2, -1)
      >>> train = sj.federated.local_sgd(loss, optax.sgd(0.1), epochs=2, batch_size=32)
    """
    if epochs < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(
            f"local_sgd needs epochs and a batch_size of at least 1, got {epochs} and {batch_size}."
        )
    step = _stepper(_with_statistics(loss, has_statistics), optax.with_extra_args_support(tx))

    def run(
        variables: Variables, opt_state: Any, samples: Any, num_samples: Any, key: PRNGKeyArray
    ) -> tuple[Variables, Any, Float[Array, ""]]:
        length = jax.tree.leaves(samples)[0].shape[0]
        batch = length if batch_size is None else batch_size
        num_samples = jnp.asarray(num_samples, jnp.int32)

        def one_epoch(carry: Any, key: Any) -> Any:
            order = _shuffled(key, length, num_samples)

            def one_batch(carry: Any, start: Any) -> Any:
                places = start + jnp.arange(batch, dtype=jnp.int32)
                own = order[places % jnp.maximum(num_samples, 1)]
                rows = jax.tree.map(lambda array: jnp.asarray(array)[own], samples)
                return step(carry, rows, places < num_samples)

            return jax.lax.scan(one_batch, carry, jnp.arange(0, length, batch, dtype=jnp.int32))

        carry = (variables, opt_state)
        keys = jax.random.split(key, epochs)
        (variables, opt_state), losses = jax.lax.scan(one_epoch, carry, keys)
        total = jnp.sum(losses)
        count = jnp.maximum(epochs * num_samples, 1).astype(total.dtype)
        return variables, opt_state, total / count

    return LocalTraining(tx.init, run)


def _stepper(loss: Callable[..., Any], tx: optax.GradientTransformationExtraArgs) -> Any:
    """A function (carry, batch, which samples count) -> (carry, sum of their losses)."""

    def step(carry: Any, batch: Any, counts: Bool[Array, "batch"]) -> Any:
        (params, statistics), opt_state = carry

        def mean(weights: Any) -> Any:
            values, new = loss(weights, statistics, batch)
            if values.shape != counts.shape:
                raise ValueError(
                    f"local_sgd needs a loss for each sample, shape {counts.shape}, got "
                    f"{values.shape}; leave out the mean over the batch."
                )
            total = jnp.sum(jnp.where(counts, values, 0))
            return total / jnp.maximum(jnp.sum(counts), 1).astype(total.dtype), (new, total)

        grads, (new, total) = jax.grad(mean, has_aux=True)(_seen(params, opt_state))
        updates, after = tx.update(grads, opt_state, params)
        trained = Variables(optax.apply_updates(params, updates), new)
        # An empty batch is a step of a client that has more samples than this one.
        keep = lambda new, old: jnp.where(counts[0], new, old)
        return jax.tree.map(
            keep, (trained, after), (Variables(params, statistics), opt_state)
        ), total

    return step


def _with_statistics(loss: Callable[..., Any], has_statistics: bool) -> Callable[..., Any]:
    if has_statistics:
        return loss
    return lambda params, statistics, batch: (loss(params, batch), statistics)


def _seen(params: Any, opt_state: Any) -> Any:
    """The weights at which the loss is computed: a Reparam's, if the optimizer has one."""
    is_state = lambda node: isinstance(node, SparsifyState)
    masked = any(map(is_state, jax.tree.leaves(opt_state, is_leaf=is_state)))
    return effective(params, opt_state) if masked else params


def _shuffled(key: PRNGKeyArray, length: int, num_samples: Any) -> Int[Array, "length"]:
    """The client's own samples in a random order that does not depend on the padding behind it."""
    numbers = jnp.arange(length, dtype=jnp.int32)
    bits = jax.vmap(lambda number: jax.random.bits(jax.random.fold_in(key, number)))(numbers)
    padding = (numbers >= num_samples).astype(jnp.int32)
    return jax.lax.sort((padding, bits, numbers), num_keys=2)[2]
