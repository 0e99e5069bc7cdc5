"""The setting of federated training: clients with few classes each, a net, and what is personal."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import sparsejax as sj
from experiments.data import datasets
from experiments.data.dataset import Dataset, Standardize, standardize_like
from experiments.models import networks
from experiments.runs.table import Interrupted, Job
from experiments.settings.train import Network, built, ctrl_c
from sparsejax.federated import Clients, Federated, FederatedState

NOBODY: tuple[str, ...] = ()


@dataclass(frozen=True)
class Federation:
    """Rounds of FedPer, FedAvg or local training; the mean of the clients' own test accuracies."""

    headline: ClassVar[str] = "accuracy"

    personal: tuple[str, ...] = NOBODY
    """Regular expressions of the layers that stay at home: none for FedAvg, "" for all."""
    classes_per_client: int = 4
    unsent: float = 0.0
    """Fraction of each kernel whose change a message leaves out; 0 sends the whole base."""
    net: networks.MakeNet = networks.mobilenet_v1_quarter
    data: datasets.Loader = datasets.fashion_mnist
    images: int = 20_000
    """How many are divided among the clients, training and test images together."""
    test_fraction: float = 0.17
    """Of each client's images, for its own test."""
    num_clients: int = 10
    rounds: int = 20
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.05
    """Of SGD without momentum and decay."""

    @property
    def label(self) -> str:
        """net-data-k-number of personal rules, and what is left unsent."""
        parts = [self.net.__name__, self.data.__name__, "fedper"]
        parts += [f"k{self.classes_per_client}", f"{len(self.personal)}rules"]
        return "-".join([*parts, *([f"unsent{100 * self.unsent:g}"] if self.unsent else [])])

    def run(self, job: Job) -> dict[str, Any]:
        """Train all rounds and test each client; goes on from the last round in the folder."""
        dataset, rounds = self.data(job.data), 2 if job.smoke else self.rounds
        standardize = standardize_like(dataset.train_images)
        train, test = self.divided(dataset, job)
        shape = standardize(dataset.train_images[:1]).shape[1:]
        network = built(lambda: self.net(shape, len(dataset.classes), job.seed))
        fed = self.federated(network, standardize)
        start = fed.init(network.params, network.statistics, num_clients=self.num_clients)
        accuracies = _judge(network, standardize, test)
        state, history = self._rounds(fed, start, train, accuracies, rounds, job)
        own = accuracies(fed.models(state))
        times = [entry["seconds"] for entry in history[1:]]  # the first compiles
        return {
            "accuracy": float(own.mean()),
            "accuracies": own.tolist(),
            "images": np.asarray(train.num_samples + test.num_samples).tolist(),
            "bytes_up": sum(entry["bytes_up"] for entry in history),
            "bytes_down": sum(entry["bytes_down"] for entry in history),
            "seconds_per_round": statistics.median(times) if times else None,
            "data": dataset.name,
            "history": history,
        }

    def divided(self, dataset: Dataset, job: Job) -> tuple[Clients, Clients]:
        """Each client's own training and test images."""
        images = np.concatenate([dataset.train_images, dataset.test_images])
        labels = np.concatenate([dataset.train_labels, dataset.test_labels]).astype(np.int32)
        rng = np.random.default_rng(job.seed)
        some = rng.permutation(len(labels))[: 40 * self.num_clients if job.smoke else self.images]
        parts = sj.federated.class_partition(
            labels[some],
            self.num_clients,
            classes_per_client=self.classes_per_client,
            key=jax.random.key(job.seed),
        )
        shuffled = [some[rng.permutation(part)] for part in parts]
        cuts = [round(len(part) * self.test_fraction) for part in shuffled]
        stack = lambda parts: sj.federated.stack_clients((images, labels), parts)
        pairs = list(zip(shuffled, cuts, strict=True))
        return stack([part[cut:] for part, cut in pairs]), stack(
            [part[:cut] for part, cut in pairs]
        )

    def federated(self, network: Network, standardize: Standardize) -> Federated:
        """The federated training: one client after the other, as convolutions want it."""
        train = sj.federated.local_sgd(
            sj.accelerate(_losses(network, standardize)),
            optax.sgd(self.learning_rate),
            epochs=self.epochs,
            batch_size=self.batch_size,
            has_statistics=True,
        )
        update = None
        if self.unsent:
            rules: dict[str, Any] = dict.fromkeys(self.personal)
            rules |= {"kernel": sj.Unstructured()}
            plan = sj.plan(network.params, rules, sparsity=self.unsent)
            update = sj.federated.top_k_update(plan)
        return sj.federated.fedper(train, self.personal, update=update, at_once=1)

    def _rounds(
        self,
        fed: Federated,
        state: FederatedState,
        train: Clients,
        accuracies: Callable,
        rounds: int,
        job: Job,
    ) -> tuple[FederatedState, list[dict[str, Any]]]:
        """The state after all rounds, each saved, and what each said."""
        history: list[dict[str, Any]] = []
        key = jax.random.key(job.seed + 1)
        with sj.checkpoint(job.folder) as checkpoints, ctrl_c() as pressed:
            start, state = checkpoints.restore(state)
            if start:
                history = checkpoints.notes(start)["history"]
            for number in range(start + 1, rounds + 1):
                began = time.perf_counter()
                state, report = fed.round(state, train, jax.random.fold_in(key, number))
                entry = {name: _total(value) for name, value in report._asdict().items()}
                entry |= {"seconds": time.perf_counter() - began, "round": number}
                if number % 5 == 0:
                    entry["accuracy"] = float(accuracies(fed.models(state)).mean())
                history.append(entry)
                checkpoints.save(number, state, notes={"history": history})
                job.report(number, rounds, {"loss": entry["loss"] / self.num_clients})
                if pressed() and number < rounds:
                    raise Interrupted(f"after round {number} of {rounds}")
        return state, history


def _total(of_clients: Any) -> float | int:
    total = np.asarray(of_clients).astype(np.float64).sum()
    return float(total) if np.asarray(of_clients).dtype.kind == "f" else int(total)


def _losses(network: Network, standardize: Standardize) -> Callable:
    """A loss for each sample, and the statistics of the batch."""

    def losses(params: Any, statistics: Any, batch: Any) -> tuple[Any, Any]:
        images, labels = batch
        module = nnx.merge(network.graph, params, statistics, copy=True)
        module.train()
        values = optax.softmax_cross_entropy_with_integer_labels(
            module(standardize(images)), labels
        )
        return values, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

    return losses


def _judge(network: Network, standardize: Standardize, test: Clients) -> Callable:
    """A function of stacked variables: each client's accuracy on its own test images."""
    apply = sj.accelerate(network.apply)

    def right(one: Any) -> Any:
        variables, (images, labels), count = one
        hits = apply(variables, standardize(images)).argmax(-1) == labels
        own = jnp.arange(labels.size) < count
        return jnp.sum(hits & own) / jnp.maximum(count, 1)

    every = jax.jit(lambda models: jax.lax.map(right, (tuple(models), *test)))
    return lambda models: np.asarray(every(models))
