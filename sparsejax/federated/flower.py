"""The bridge to Flower: a client and a strategy that exchange the messages of `fedper`."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from sparsejax.federated.averages import weighted_average
from sparsejax.federated.messages import everything, pack, unpack
from sparsejax.federated.rounds import Federated, train_at_home
from sparsejax.federated.variables import Variables, check_variables, split
from sparsejax.training.checkpoints import checkpoint


def flower_client(
    fed: Federated,
    params: Any,
    samples: Any,
    statistics: Any = (),
    *,
    name: str,
    folder: str | os.PathLike,
    key: PRNGKeyArray,
) -> Any:
    """A Flower `NumPyClient` that trains as a client of `fed` does and sends its base alone.

    After each round its base, personal layers and optimizer state are in `folder`, those of the
    round before beside them. The server says which of its rounds it counted, and the client goes on
    from that one: if it dies in a round, before or after it has answered, nothing is lost and
    nothing counts twice. Start it again with the same name and folder.

    Args:
      fed: of `fedper`, the same for all clients and the server.
      params: those that all begin with; the personal layers may differ from client to client.
      samples: a pytree of arrays with the client's own samples first; it needs one at least.
      statistics: as for `fed.init`.
      name: of this client, for the server; no two have the same.
      folder: of this client alone.
      key: a PRNG key, of this client alone.

    Raises:
      ImportError: Flower is not installed.

    Reference: https://flower.ai/docs/framework/ref-api/flwr.client.NumPyClient.html
    """
    flower = _flower()
    rules, update = fed.personal, fed.update
    variables = Variables(params, statistics)
    check_variables(variables, rules)
    base, own = split(variables, rules)
    first = (base, (own, fed.train.init(params), update.init(base)))
    shared, num_samples = update.shared(base), len(jax.tree.leaves(samples)[0])
    one_round = jax.jit(partial(train_at_home, fed.train, rules, update))

    abstract: Any = flower.NumPyClient  # Flower wants a subclass

    class FedPerClient(abstract):
        """A client of a federated training."""

        def get_properties(self, config: dict[str, Any]) -> dict[str, Any]:
            """Its name, and how many rounds it has in its folder."""
            with checkpoint(folder) as rounds:
                return {"name": name, "rounds": max(rounds.steps, default=0)}

        def fit(self, parameters: list[np.ndarray], config: dict[str, Any]) -> Any:
            """Train one round from the last one that the server counted."""
            with checkpoint(folder) as rounds:
                if not rounds.steps:
                    rounds.save(0, *first)
                counted, known, held = rounds.restore(*first, step=config["counted"])
                base, _ = unpack(parameters, known, shared)
                own_key = jax.random.fold_in(key, counted)
                received, sent, held, loss = one_round(base, held, samples, num_samples, own_key)
                rounds.save(counted + 1, base, held)
            metrics = {"name": name, "rounds": counted + 1, "loss": float(loss)}
            return pack(received, sent, shared), num_samples, metrics

    return FedPerClient()


class _Known(NamedTuple):
    """What the server knows of a client: its last counted round, where its base is old."""

    rounds: int
    stale: Any


def flower_strategy(
    fed: Federated, params: Any, statistics: Any = (), *, min_clients: int, wait: float = 86_400.0
) -> Any:
    """A Flower strategy that averages the base of `fed`, and sends each client what it lacks.

    Its attribute `base` is the server's base. The metrics of each round are the mean loss, the
    bytes of the messages up and down without Flower's framing, and how many clients failed. A
    client that fails in a round does not count in it, and is told later what it missed.

    Args:
      fed: of `fedper`, the same for all clients and the server.
      params: those that all begin with.
      statistics: as for `fed.init`.
      min_clients: how many must be connected before a round begins.
      wait: for them, in seconds.

    Raises:
      ImportError: Flower is not installed.

    Reference: https://flower.ai/docs/framework/ref-api/flwr.server.strategy.Strategy.html
    """
    flower = _flower()
    check_variables(Variables(params, statistics), fed.personal)

    abstract: Any = flower.Strategy  # Flower wants a subclass

    class FedPerStrategy(abstract):
        """The server of a federated training."""

        def __init__(self) -> None:
            self.base, _ = split(Variables(params, statistics), fed.personal)
            self._shared = fed.update.shared(self.base)
            self._known: dict[str, _Known] = {}
            self._bytes_down = 0

        def initialize_parameters(self, client_manager: Any) -> Any:
            """The base."""
            return self._parameters()

        def _parameters(self) -> Any:
            return flower.to_parameters([np.asarray(leaf) for leaf in jax.tree.leaves(self.base)])

        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
            """To each client that answers, what of the base it lacks."""
            if not client_manager.wait_for(min_clients, timeout=int(wait)):
                raise TimeoutError(
                    f"flower_strategy waited {wait:g} s for {min_clients} clients, "
                    f"{client_manager.num_available()} came; start more, or ask for fewer."
                )
            self._bytes_down, instructions = 0, []
            proxies = list(client_manager.all().values())
            with ThreadPoolExecutor() as threads:
                names = list(threads.map(lambda proxy: self._meet(proxy, server_round), proxies))
            for proxy, name in zip(proxies, names, strict=True):
                if name is None:
                    continue
                if names.count(name) > 1:
                    raise ValueError(f"Each client needs a name of its own, two are {name!r}.")
                known = self._known[name]
                message = pack(self.base, known.stale, self._shared)
                self._bytes_down += sum(array.nbytes for array in message)
                config = {"counted": known.rounds}
                instructions.append((proxy, flower.FitIns(flower.to_parameters(message), config)))
            return instructions

        def _meet(self, proxy: Any, server_round: int) -> str | None:
            """The client's name; None if it does not answer."""
            try:
                said = proxy.get_properties(flower.GetPropertiesIns({}), 60.0, server_round)
            except Exception:  # whatever the transport raises; fit would fail alike
                return None
            name = said.properties["name"]
            if name not in self._known:
                everywhere = jax.tree.map(np.asarray, everything(self.base))
                self._known[name] = _Known(said.properties["rounds"], everywhere)
            return name

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            """The next base, from the clients that answered."""
            received, union, bytes_up = [], None, 0
            for _, result in results:
                message = flower.to_arrays(result.parameters)
                bytes_up += sum(array.nbytes for array in message)
                values, sent = unpack(message, self.base, self._shared)
                received.append(values)
                either = lambda one, other: np.logical_or(one, other)
                union = sent if union is None else jax.tree.map(either, union, sent)
                metrics = result.metrics
                nowhere = jax.tree.map(np.zeros_like, sent)
                self._known[metrics["name"]] = _Known(metrics["rounds"], nowhere)
            if not received:
                return None, {"failures": len(failures)}
            counts = np.array([result.num_examples for _, result in results])
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *received)
            self.base = weighted_average(stacked, jnp.asarray(counts))
            for name, known in self._known.items():
                stale = jax.tree.map(np.logical_or, known.stale, union)
                self._known[name] = known._replace(stale=stale)
            losses = [result.metrics["loss"] for _, result in results]
            return self._parameters(), {
                "loss": float(np.average(losses, weights=counts)),
                "bytes_up": bytes_up,
                "bytes_down": self._bytes_down,
                "failures": len(failures),
            }

        def configure_evaluate(
            self, server_round: int, parameters: Any, client_manager: Any
        ) -> Any:
            """Nobody: each client's network is its own."""
            return []

        def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
            """Nothing."""
            return None, {}

        def evaluate(self, server_round: int, parameters: Any) -> None:
            """Nothing: the server has no whole network."""

    return FedPerStrategy()


class _Flower(NamedTuple):
    """What of Flower is used here."""

    NumPyClient: Any
    Strategy: Any
    FitIns: Any
    GetPropertiesIns: Any
    to_parameters: Callable[..., Any]
    to_arrays: Callable[..., Any]


def _flower() -> _Flower:
    try:
        from flwr.client import NumPyClient
        from flwr.common import (
            FitIns,
            GetPropertiesIns,
            ndarrays_to_parameters,
            parameters_to_ndarrays,
        )
        from flwr.server.strategy import Strategy
    except ImportError as error:
        raise ImportError(
            "The bridge to Flower needs flwr, which is not installed: "
            "pip install 'sparsejax[federated]'."
        ) from error
    return _Flower(
        NumPyClient,
        Strategy,
        FitIns,
        GetPropertiesIns,
        ndarrays_to_parameters,
        parameters_to_ndarrays,
    )
