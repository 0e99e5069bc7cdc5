"""ProxylessNAS: weights and paths of an over-parametrised network trained in turns."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from sparsejax.search.gates import Gate, keep_others, sample_gate
from sparsejax.search.path_costs import Alphas, PathCosts

Loss = Callable[[Any, Alphas, Sequence[Gate], Any], tuple[Float[Array, ""], Float[Array, ""]]]
"""`loss(params, alphas, gates, batch) -> (loss, accuracy)` of a network of `one_path`s."""
CostTerm = Callable[[Float[Array, ""], Float[Array, ""]], Float[Array, ""]]


class ProxylessState(NamedTuple):
    """Everything that decides the next step: a pytree, for a checkpoint."""

    params: Any
    alphas: tuple[Float[Array, " paths"], ...]
    opt_state: Any
    alphas_state: Any
    baseline: Float[Array, ""]
    key: PRNGKeyArray


Step = Callable[[ProxylessState, Any], tuple[ProxylessState, Float[Array, ""]]]


class Proxyless(NamedTuple):
    """A search: the first state, and three kinds of steps `(state, batch) -> (state, loss)`.

    Attributes:
      init: `init(params, num_paths, key)`, with how many paths each edge has.
      warm_up: trains the weights of random paths.
      train_weights: trains the weights of paths drawn by alphas.
      train_alphas: trains alphas, on a batch of images that no weight is trained with.
    """

    init: Callable[[Any, Sequence[int], PRNGKeyArray], ProxylessState]
    warm_up: Step
    train_weights: Step
    train_alphas: Step


def times_log_cost(reference: float, *, scale: float = 0.2, power: float = 0.3) -> CostTerm:
    """The loss scale * CE * (log cost / log reference)^power.

    Args:
      reference: the cost that is aimed at, > 1 in its unit.
      scale, power: the paper's alpha and beta.

    Example:
      >>> term = sj.search.times_log_cost(10.0)
      >>> round(term(jnp.array(1.0), jnp.array(10.0)).item(), 4)
      0.2

    Reference: Cai et al., ProxylessNAS, arXiv 1812.00332; form and defaults as in the authors'
    code ("mul#log").
    """
    if not reference > 1.0:
        raise ValueError(
            f"times_log_cost needs a reference above 1, whose logarithm it divides by, got "
            f"{reference}; take a smaller unit."
        )
    return lambda loss, cost: scale * loss * (jnp.log(cost) / jnp.log(reference)) ** power


def plus_cost(reference: float, *, strength: float = 0.1) -> CostTerm:
    """The loss CE + strength * (cost - reference) / reference.

    Args:
      reference: the cost that is aimed at, > 0.
      strength: the paper's lambda.

    Example:
      >>> term = sj.search.plus_cost(10.0)
      >>> round(term(jnp.array(1.0), jnp.array(20.0)).item(), 4)
      1.1

    Reference: Cai et al., ProxylessNAS, arXiv 1812.00332, equation 6; form and default as in the
    authors' code ("add#linear").
    """
    if not reference > 0.0:
        raise ValueError(f"plus_cost needs a reference above 0, got {reference}.")
    return lambda loss, cost: loss + strength * (cost - reference) / reference


def adam_for_gates(rate: float = 1e-3) -> optax.GradientTransformation:
    """The authors' optimizer for alphas: Adam without momentum, so that only candidates move.

    Args:
      rate: of learning.
    """
    return optax.adam(rate, b1=0.0, b2=0.999)


def proxyless(
    loss: Loss,
    tx: optax.GradientTransformation,
    costs: PathCosts,
    term: CostTerm,
    *,
    num_candidates: int | None = 2,
    alphas_tx: optax.GradientTransformation | None = None,
) -> Proxyless:
    """The search by gradients, through binary gates and the expected cost.

    Args:
      loss: of a network whose edges are `one_path(paths, alphas[i], gates[i], ...)`.
      tx: optimizer of the weights.
      costs: of the paths.
      term: `times_log_cost(...)` or `plus_cost(...)`.
      num_candidates: paths of an edge whose alphas a step changes: the paper's two, or None for
        all. With two, those of the others are moved so that their probabilities stay.
      alphas_tx: optimizer of alphas, `sj.search.adam_for_gates()` if None.

    Reference: Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
    Hardware", ICLR 2019, arXiv 1812.00332, sections 3.2 and 3.3.
    """
    own_tx = adam_for_gates() if alphas_tx is None else alphas_tx

    def step(state: ProxylessState, batch: Any) -> tuple[ProxylessState, Float[Array, ""]]:
        key, gates = _draw(state, num_candidates)

        def total(alphas: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
            value = loss(state.params, alphas, gates, batch)[0]
            return term(value, costs.expected(alphas, gates)), value

        grads, value = jax.grad(total, has_aux=True)(state.alphas)
        updates, alphas_state = own_tx.update(grads, state.alphas_state, state.alphas)
        alphas = optax.apply_updates(state.alphas, updates)
        if num_candidates is not None:
            trios = zip(alphas, state.alphas, gates, strict=True)
            alphas = tuple(keep_others(new, old, gate.candidates) for new, old, gate in trios)
        return state._replace(alphas=alphas, alphas_state=alphas_state, key=key), value

    return _search(loss, tx, own_tx, jax.jit(step))


def proxyless_reinforce(
    loss: Loss,
    tx: optax.GradientTransformation,
    costs: PathCosts,
    reference: float,
    *,
    num_samples: int = 10,
    power: float = 0.1,
    alphas_tx: optax.GradientTransformation | None = None,
) -> Proxyless:
    """The search by REINFORCE: reward accuracy * (reference / cost)^power, for any cost.

    The baseline moves by 0.99 of the way to the mean reward of the samples, as in the authors'
    code, so that it is nearly that mean. Differs: it starts at 0, theirs at the first mean.

    Args:
      loss: as in `proxyless`; its accuracy is what counts.
      tx: optimizer of the weights.
      costs: of the paths.
      reference: the cost that is aimed at.
      num_samples: networks that a step draws.
      power: of the reward.
      alphas_tx: optimizer of alphas, `sj.search.adam_for_gates()` if None.

    Reference: Cai et al., ProxylessNAS, arXiv 1812.00332, section 3.3.1.
    """
    own_tx = adam_for_gates() if alphas_tx is None else alphas_tx

    def one(state: ProxylessState, key: PRNGKeyArray, batch: Any) -> tuple[Any, Any, Any]:
        gates = _gates(key, state.alphas, 0)
        value, accuracy = loss(state.params, state.alphas, gates, batch)
        cost = costs.of([gate.active for gate in gates])
        log_chance = lambda alphas: sum(map(_log_chance, alphas, gates))
        return accuracy * (reference / cost) ** power, jax.grad(log_chance)(state.alphas), value

    def step(state: ProxylessState, batch: Any) -> tuple[ProxylessState, Float[Array, ""]]:
        key, own = jax.random.split(state.key)
        keys = jax.random.split(own, num_samples)
        rewards, directions, values = jax.lax.map(lambda key: one(state, key, batch), keys)
        baseline = state.baseline + 0.99 * (rewards.mean() - state.baseline)
        lifts = (rewards - baseline) / num_samples
        grads = jax.tree.map(lambda own: -jnp.tensordot(lifts, own, 1), directions)
        updates, alphas_state = own_tx.update(grads, state.alphas_state, state.alphas)
        alphas = optax.apply_updates(state.alphas, updates)
        state = state._replace(alphas=alphas, alphas_state=alphas_state, baseline=baseline)
        return state._replace(key=key), values.mean()

    return _search(loss, tx, own_tx, jax.jit(step))


def _search(loss: Loss, tx: Any, own_tx: Any, train_alphas: Step) -> Proxyless:
    """The search with these steps of alphas."""

    def init(params: Any, num_paths: Sequence[int], key: PRNGKeyArray) -> ProxylessState:
        key, own = jax.random.split(key)
        keys = jax.random.split(own, len(num_paths))
        pairs = zip(keys, num_paths, strict=True)
        alphas = tuple(1e-3 * jax.random.normal(one, (size,)) for one, size in pairs)
        states = tx.init(params), own_tx.init(alphas)
        return ProxylessState(params, alphas, *states, jnp.zeros(()), key)

    def weights(state: ProxylessState, alphas: Any, batch: Any) -> Any:
        key, own = jax.random.split(state.key)
        gates = _gates(own, alphas, 0)
        value_of = lambda params: loss(params, alphas, gates, batch)[0]
        value, grads = jax.value_and_grad(value_of)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state, key=key), value

    jitted = jax.jit(weights)
    return Proxyless(
        init=init,
        warm_up=lambda state, batch: jitted(
            state, jax.tree.map(jnp.zeros_like, state.alphas), batch
        ),
        train_weights=lambda state, batch: jitted(state, state.alphas, batch),
        train_alphas=train_alphas,
    )


def _draw(state: ProxylessState, num_candidates: int | None) -> tuple[PRNGKeyArray, list[Gate]]:
    key, own = jax.random.split(state.key)
    return key, _gates(own, state.alphas, num_candidates)


def _gates(key: PRNGKeyArray, alphas: Alphas, num_candidates: int | None) -> list[Gate]:
    """A gate for each edge; one with fewer paths has them all as candidates."""
    keys = jax.random.split(key, len(alphas))
    count = lambda own: num_candidates and min(num_candidates, own.shape[0])
    return [
        sample_gate(one, own, num_candidates=count(own))
        for one, own in zip(keys, alphas, strict=True)
    ]


def _log_chance(alphas: Array, gate: Gate) -> Float[Array, ""]:
    return jax.nn.log_softmax(alphas)[gate.active]
