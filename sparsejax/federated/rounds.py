"""Rounds of federated training in one program: clients train, the server averages the base."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sparsejax.doors import checked, named
from sparsejax.federated.averages import weighted_average
from sparsejax.federated.local import LOCAL, LocalTraining
from sparsejax.federated.messages import everything, num_bytes
from sparsejax.federated.samples import Clients
from sparsejax.federated.updates import UPDATE, BaseUpdate, whole_update
from sparsejax.federated.variables import (
    Variables,
    check_rules,
    check_variables,
    merge,
    split,
)


class FederatedState(NamedTuple):
    """The server's base, and what each client holds, clients first.

    Attributes:
        base: the shared variables, a MaskedNode where a leaf is personal.
        personal: those of each client, a MaskedNode where a leaf is shared.
        opt_states: of each client's optimizer.
        kept: what each client's `BaseUpdate` keeps.
        stale: where a client's copy of the base is not the server's: all of it at first.
    """

    base: Variables
    personal: Variables
    opt_states: Any
    kept: Any
    stale: Variables


class RoundReport(NamedTuple):
    """Of each client in a round; zeros where it took no part.

    Attributes:
        loss: the mean over its epochs.
        bytes_up: of its message, values and positions, exactly.
        bytes_down: of what it had to be told of the base before it trained.
        took_part: it was active and has samples.
    """

    loss: Float[Array, "clients"]
    bytes_up: Int[Array, "clients"]
    bytes_down: Int[Array, "clients"]
    took_part: Bool[Array, "clients"]


class Federated(NamedTuple):
    """A federated training, as three functions and what they are made of.

    Attributes:
        init: (params, statistics=(), *, num_clients, own=None) -> state. All clients begin with
            these variables; `own`, the Variables of each client, stacked, gives each its personal
            layers.
        round: (state, clients, key, active=None) -> (state, RoundReport), jitted. `active` says
            which clients take part, all for None.
        models: state -> the Variables of each client's whole network, stacked.
        train, personal, update: what it is made of, for `flower_client` and `flower_strategy`.
    """

    init: Callable[..., FederatedState]
    round: Callable[..., tuple[FederatedState, RoundReport]]
    models: Callable[[FederatedState], Variables]
    train: LocalTraining
    personal: tuple[str, ...]
    update: BaseUpdate


@checked(train=LOCAL, update=UPDATE)
def fedper(
    train: LocalTraining,
    personal: Sequence[str],
    *,
    update: BaseUpdate | None = None,
    at_once: int | None = None,
) -> Federated:
    """The federated training in which some layers are each client's own and never leave it.

    In a round each active client gets the base W_B, trains base and personal layers together, and
    sends its base alone; the server's next base is sum_j n_j W_B,j / sum_i n_i, n_j the client's
    number of samples. Batch statistics are variables like the params: those of base layers are
    averaged, those of personal layers stay. Without personal layers it is FedAvg; with all of them
    (r"") each client trains alone. Clients that are not active, or have no samples, keep what they
    have, and count neither in the average nor in the bytes.

    Args:
      train: what a client does in a round, of `local_sgd`.
      personal: regular expressions, searched in the paths of params and statistics: r"head/".
      update: what of the base is sent; None for `whole_update()`.
      at_once: how many clients train side by side (`jax.vmap`); None for all. Convolutions with
        weights of their own for each client are slow on CPUs, where 1 is faster.

    Raises:
      TypeError, ValueError: `init` says which leaf has no average, such as an integer, or which
        rule claims nothing.

    Example:
      >>> loss = lambda params, x: jnp.sum(model.apply(params, x) ** 2, -1)
      >>> train = sj.federated.local_sgd(loss, optax.sgd(0.1), epochs=1, batch_size=2)
      >>> fed = sj.federated.fedper(train, [r"head/"])
      >>> state = fed.init(params, num_clients=2)
      >>> clients = sj.federated.stack_clients(x, [[0, 1], [2]])
      >>> state, report = fed.round(state, clients, key)
      >>> report.bytes_up.tolist()
      [128, 128]

    Reference: Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization
    Layers", 2019, arXiv 1912.00818, algorithms 1 and 2. Differs: its text was not at hand, the
    algorithm is a reconstruction that agrees with Flower's baseline of it (baselines/fedper) but
    for the weights, there numbers of batches, and for batch norm, there without running statistics.
    FedAvg: McMahan et al., AISTATS 2017, arXiv 1602.05629.
    """
    rules, update = check_rules(personal), update or whole_update()

    def init(
        params: Any, statistics: Any = (), *, num_clients: int, own: Variables | None = None
    ) -> FederatedState:
        variables = Variables(params, statistics)
        check_variables(variables, rules)
        copies = lambda tree: jax.tree.map(partial(_copied, num_clients), tree)
        base, _ = split(variables, rules)
        whole = copies(variables) if own is None else merge(copies(base), split(own, rules)[1])
        opt_states = jax.vmap(train.init)(whole.params)
        kept, stale = copies(update.init(base)), copies(everything(base))
        return FederatedState(base, split(whole, rules)[1], opt_states, kept, stale)

    one_round = jax.jit(partial(_round, train, rules, update, at_once))

    def round_(
        state: FederatedState, clients: Clients, key: PRNGKeyArray, active: Any = None
    ) -> tuple[FederatedState, RoundReport]:
        num_clients = _check_clients(state, clients)
        active = jnp.ones(num_clients, bool) if active is None else jnp.asarray(active, bool)
        return one_round(state, clients, key, active)

    def models(state: FederatedState) -> Variables:
        num_clients = _num_clients(state)
        spread = lambda leaf: jnp.broadcast_to(leaf, (num_clients, *leaf.shape))
        return merge(jax.tree.map(spread, state.base), state.personal)

    return Federated(init, round_, models, train, rules, update)


def _copied(num_clients: int, leaf: Any) -> Any:
    return jnp.repeat(jnp.asarray(leaf)[None], num_clients, 0)


def _check_clients(state: FederatedState, clients: Any) -> int:
    """How many clients there are, in the state and in the samples alike."""
    if not isinstance(clients, Clients):
        raise TypeError(
            f"round needs Clients, got {named(clients)}; make them by "
            "sj.federated.stack_clients(samples, parts)."
        )
    num_clients = _num_clients(state)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(clients.samples)]
    if any(shape[:1] != (num_clients,) for shape in (*shapes, jnp.shape(clients.num_samples))):
        raise ValueError(
            f"round needs samples of {num_clients} clients as its state has, got arrays of shapes "
            f"{', '.join(map(str, shapes))} and num_samples of shape "
            f"{jnp.shape(clients.num_samples)}; give init the num_clients of the samples."
        )
    return num_clients


def _num_clients(state: FederatedState) -> int:
    return jax.tree.leaves((state.stale, state.personal))[0].shape[0]


def train_at_home(
    train: LocalTraining,
    rules: Sequence[str],
    update: BaseUpdate,
    base: Variables,
    held: tuple[Variables, Any, Any],
    samples: Any,
    num_samples: Any,
    key: PRNGKeyArray,
) -> tuple[Variables, Variables, tuple[Variables, Any, Any], Float[Array, ""]]:
    """A client's round: what the server then knows of its base, what was sent, what it holds, loss.

    It holds its personal layers, its optimizer's state, and what its update keeps.
    """
    own, opt_state, kept = held
    trained, after, loss = train.run(merge(base, own), opt_state, samples, num_samples, key)
    trained_base, trained_own = split(trained, rules)
    received, sent, waiting = update.send(trained_base, base, kept)
    return received, sent, (trained_own, after, waiting), loss


def _round(
    train: LocalTraining,
    rules: Sequence[str],
    update: BaseUpdate,
    at_once: int | None,
    state: FederatedState,
    clients: Clients,
    key: PRNGKeyArray,
    active: Bool[Array, "clients"],
) -> tuple[FederatedState, RoundReport]:
    base, shared = state.base, update.shared(state.base)
    num_samples = jnp.asarray(clients.num_samples, jnp.int32)
    takes_part = active & (num_samples > 0)

    def client(number: Any, held: Any, samples: Any, num_samples: Any, here: Any) -> Any:
        *held, stale = held
        own_key = jax.random.fold_in(key, number)
        received, sent, holds, loss = train_at_home(
            *(train, rules, update), base, tuple(held), samples, num_samples, own_key
        )
        holds = jax.tree.map(lambda new, old: jnp.where(here, new, old), holds, tuple(held))
        up, down = (num_bytes(base, where, shared) for where in (sent, stale))
        sent = jax.tree.map(partial(jnp.logical_and, here), sent)
        stale = jax.tree.map(lambda old: old & ~here, stale)
        report = jax.tree.map(
            lambda own: jnp.where(here, own, 0), RoundReport(loss, up, down, here)
        )
        return received, sent, holds, stale, report

    held = (state.personal, state.opt_states, state.kept, state.stale)
    numbers = jnp.arange(num_samples.size, dtype=jnp.int32)
    each = (numbers, held, clients.samples, num_samples, takes_part)
    if at_once is None:
        out = jax.vmap(client)(*each)
    else:  # a batch of one would be vmapped, too
        size = None if at_once == 1 else at_once
        out = jax.lax.map(lambda one: client(*one), each, batch_size=size)
    received, sent, (own, opt_states, kept), stale, report = out
    average = weighted_average(received, jnp.where(takes_part, num_samples, 0))
    anyone = jnp.any(takes_part)
    base = jax.tree.map(lambda new, old: jnp.where(anyone, new, old), average, base)
    stale = jax.tree.map(lambda old, new: old | jnp.any(new, 0), stale, sent)
    return FederatedState(base, own, opt_states, kept, stale), report
