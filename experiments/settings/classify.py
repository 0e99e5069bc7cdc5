"""The setting of the image classifiers: a net, a data set, a recipe, a sparsity and a budget.

Every method of a table gets the same budget: steps, batches, clipped gradients, AdamW, a one-cycle
schedule. What is reported is the last step's accuracy on the whole test set with hard masks.
"""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from experiments.data import datasets
from experiments.data.dataset import Dataset, Standardize, batches, standardize_like
from experiments.models import networks
from experiments.recipes import DenseOptimizer, Recipe, Setup
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job, Row, added
from experiments.settings import train
from experiments.settings.left import left
from experiments.settings.train import count_zeros, fingerprint
from sparsejax.plans.leaf import Allocator

UNSTRUCTURED = sj.Unstructured()
REESTIMATE = 100  # batches: at momentum 0.97 the old statistics are down to 5 %


Lesson = Callable[..., tuple[train.TrainState, list[dict[str, Any]]]]
Course = Callable[
    [Lesson, train.TrainState, Dataset, int, Job], tuple[train.TrainState, list[dict[str, Any]]]
]


def whole(
    lesson: Lesson, state: train.TrainState, dataset: Dataset, steps: int, job: Job
) -> tuple[train.TrainState, list[dict[str, Any]]]:
    """The usual course: all steps on all the data."""
    return lesson(state, dataset, steps, job.folder)


@dataclass(frozen=True)
class Classify:
    """Train a classifier with a recipe and test the deployed weights."""

    headline: ClassVar[str] = "accuracy"

    method: Recipe = dense
    sparsity: float = 0.0
    """Zeros / weights over the leaves that `prunable` names (N:M patterns set their own)."""
    net: networks.MakeNet = networks.mobilenet_v1_quarter
    data: datasets.Loader = datasets.fashion_mnist
    prunable: str = r"pointwise/kernel"
    """A regular expression on normalised paths."""
    pattern: sj.Pattern = UNSTRUCTURED
    exceptions: tuple[tuple[str, sj.Pattern], ...] = ()
    """Pairs of a path and the pattern of leaves there, before `prunable`."""
    allocate: Allocator = sj.allocate.erk
    """How the sparsity is spread over the leaves, where the method does not decide."""
    steps: int = 3_000
    batch_size: int = 64
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule: up for a fifth of the steps, then a cosine to zero."""
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    """Longer gradients, of all leaves together, are scaled down to this; inf leaves them."""
    momentum: float | None = added(None)
    """None for AdamW; else Nesterov's, of SGD with L2, its rate a cosine after a short warm-up."""

    @property
    def label(self) -> str:
        """net-data-method-percent, and the pattern if it is not unstructured."""
        parts = [f.__name__ for f in (self.net, self.data, self.method)]
        parts.append(f"{100 * self.sparsity:g}")
        if self.pattern != UNSTRUCTURED:
            parts.append(str(self.pattern))
        return "-".join(parts)

    def run(self, job: Job) -> dict[str, Any]:
        """Train, harden, test; goes on from a checkpoint in the job's folder."""
        return self.train_from(self.start(job), job)[1]

    def start(self, job: Job) -> train.Network:
        """The network before the first step."""
        dataset, _ = self._work(job)
        images = standardize_like(dataset.train_images)(dataset.train_images[:1])
        return train.built(lambda: self.net(images.shape[1:], len(dataset.classes), job.seed))

    def train_from(
        self,
        network: train.Network,
        job: Job,
        course: Course = whole,
        gradients: Callable[[train.Network], Callable] = train.make_gradients,
    ) -> tuple[train.TrainState, dict[str, Any]]:
        """The deployed state and the result of a training that starts at a network's variables."""
        dataset, steps = self._work(job)
        tx, plan = self.optimizer(network, dataset, steps, job.seed)
        on_the_way = _evaluation(network, dataset.on_the_way)
        name = "test_accuracy" if dataset.on_the_way is dataset else "validation_accuracy"
        clock = Clock(job.report, steps)

        def measure(state: train.TrainState) -> dict[str, float]:
            accuracy = on_the_way(train.forward(state), state.statistics, 2_000)
            return {name: accuracy, "sparsity": train.sparsity_of(state.opt_state)}

        lesson = functools.partial(
            self._lesson,
            train.make_step(gradients(network), tx),
            job=job,
            measure=measure,
            measure_every=max(5, steps // 6),
            report=clock.tick,
        )
        state, history = course(lesson, train.initial_state(network, tx), dataset, steps, job)
        state = self._deployed(network, state, dataset, job.seed)
        evaluate = _evaluation(network, dataset)
        return state, {
            "accuracy": evaluate(state.params, state.statistics),
            "test_images": len(dataset.test_labels),
            **_counts(state.params, plan),
            **left(network, state, plan, dataset),
            "ms_per_step": clock.median_ms(),
            "data": dataset.name,
            "fingerprint": fingerprint(state),
            "history": history,
        }

    def _lesson(
        self,
        step: Callable,
        state: train.TrainState,
        dataset: Dataset,
        num_steps: int,
        folder: Path,
        *,
        job: Job,
        **options: Any,
    ) -> tuple[train.TrainState, list[dict[str, Any]]]:
        """Train until `num_steps` on a data set; goes on from the folder's checkpoint."""
        order = batches(dataset, batch_size=self.batch_size, seed=job.seed)
        with sj.checkpoint(folder) as checkpoints:
            return train.train(
                step, state, order, num_steps=num_steps, checkpoints=checkpoints, **options
            )

    def _work(self, job: Job) -> tuple[Dataset, int]:
        """The data and the number of steps, little of both in a smoke run."""
        dataset = self.data(job.data)
        if not job.smoke:
            return dataset, self.steps
        return _first(dataset, 20 * self.batch_size), min(20, self.steps)

    def optimizer(
        self, network: train.Network, dataset: Dataset, steps: int, seed: int
    ) -> tuple[optax.GradientTransformation, sj.Plan]:
        """The recipe's transform around AdamW, and the plan."""
        plan = self.plan(network.params)
        parts = self.dense_optimizer(steps)

        def loss(params: Any, batch: Any, *, temperature: float = 1.0) -> Any:
            # Not accelerated: some methods want jax.jvp.
            loss_of = train.make_loss(network, temperature)
            return loss_of(params, network.statistics, *batch)[0]

        setup = Setup(
            plan=plan,
            steps=steps,
            steps_per_epoch=max(1, len(dataset.train_labels) // self.batch_size),
            params=network.params,
            optimizer=parts,
            loss=loss,
            apply=lambda params, images: network.apply((params, network.statistics), images),
            batches=lambda count: self.batches(dataset, seed, count),
            key=jax.random.key(seed),
        )
        return self.method(parts.transform(), setup), plan

    def dense_optimizer(self, steps: int) -> DenseOptimizer:
        """AdamW on a one-cycle schedule, or SGD on a cosine after 1/24 of warm-up."""
        if self.momentum is None:
            rate = optax.schedules.cosine_onecycle_schedule(
                max(1, steps), self.learning_rate, pct_start=0.2
            )
        else:
            rate = optax.warmup_cosine_decay_schedule(
                0.0, self.learning_rate, warmup_steps=steps // 24, decay_steps=max(2, steps)
            )
        return DenseOptimizer(rate, self.weight_decay, self.clip_norm, self.momentum)

    def plan(self, params: Any) -> sj.Plan:
        """What is pruned of a network, and how much."""
        own = self.pattern
        rule = (own, own.max_sparsity(())) if isinstance(own, sj.NM) else own
        rules = {**dict(self.exceptions), self.prunable: rule}
        return sj.plan(params, rules, sparsity=self.sparsity, allocate=self.allocate)

    def batches(self, dataset: Dataset, seed: int, count: int) -> list:
        """Training batches of an order of their own."""
        order = batches(dataset, batch_size=self.batch_size, seed=seed + 1_000_000)
        return [tuple(map(jnp.asarray, next(order))) for _ in range(count)]

    def _deployed(
        self, network: train.Network, state: train.TrainState, dataset: Dataset, seed: int
    ) -> train.TrainState:
        """The state with hard weights, and statistics to match where these are not the trained."""
        trained = train.forward(state)
        hard = train.hard_weights(state.params, state.opt_state)
        if all(jax.tree.leaves(jax.tree.map(np.array_equal, trained, hard))):
            return state._replace(params=hard)
        loss_of = sj.accelerate(train.make_loss(network))
        collect = jax.jit(lambda statistics, batch: loss_of(hard, statistics, *batch)[1][0])
        collected = state.statistics
        for batch in self.batches(dataset, seed, REESTIMATE):
            collected = collect(collected, batch)
        return state._replace(params=hard, statistics=collected)


def ladder(name: str, method: Recipe, **options: Any) -> tuple[Row, ...]:
    """A method's rows "name 80 %" to "name 98 %": three seeds at 90 and 98, one at 80 and 95."""
    return tuple(
        Row(f"{name} {100 * sparsity:g} %", Classify(method, sparsity, **options), seeds)
        for sparsity, seeds in ((0.8, 1), (0.9, 3), (0.95, 1), (0.98, 3))
    )


class Clock:
    """Reports steps and keeps their times."""

    def __init__(self, report: Any, steps: int):
        self._report, self._steps = report, steps
        self._last: float | None = None
        self._times: list[float] = []

    def tick(self, state: train.TrainState, smooth: dict[str, float]) -> None:
        """To be called after each step."""
        now = time.perf_counter()
        if self._last is not None:
            self._times.append(now - self._last)
        self._last = now
        self._report(int(state.step), self._steps, smooth)

    def median_ms(self) -> float | None:
        """Of this process's steps; None when it went on from the very last one."""
        return 1e3 * statistics.median(self._times) if self._times else None


def _evaluation(network: train.Network, dataset: Dataset) -> Any:
    standardize = standardize_like(dataset.train_images)
    if isinstance(dataset.test_images, np.ndarray):
        images: Any = standardize(dataset.test_images)
    else:
        images = _Standardized(dataset.test_images, standardize)
    return train.make_evaluate(network, images, dataset.test_labels, batch_size=500)


@dataclass(frozen=True)
class _Standardized:
    """Images that are too many for memory, standardised as they are read."""

    images: Any
    standardize: Standardize

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.standardize(self.images[key])


def _counts(params: Any, plan: sj.Plan) -> dict[str, Any]:
    """Exact zeros among the plan's weights and among all, and what was planned."""
    counts = count_zeros(params, plan)
    zeros = sum(int((np.asarray(leaf) == 0).sum()) for leaf in jax.tree.leaves(params))
    return {
        **counts,
        "planned_zeros": plan.num_pruned,
        "sparsity": counts["zeros"] / counts["prunable"],
        "sparsity_of_all": zeros / counts["parameters"],
    }


def _first(dataset: Dataset, count: int) -> Dataset:
    """A little of the data, for a smoke run."""
    return dataset._replace(
        train_images=dataset.train_images[:count],
        train_labels=dataset.train_labels[:count],
        test_images=dataset.test_images[:count],
        test_labels=dataset.test_labels[:count],
    )
