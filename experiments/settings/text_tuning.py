"""The setting of sparse fine-tuning: MiniLM's layers and a head trained on movie sentiment."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import grain
import jax
import numpy as np
import optax
from jaxtyping import Array, Float

import sparsejax as sj
from experiments.recipes import DenseOptimizer, Recipe, Setup
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import UNSTRUCTURED, Clock
from experiments.settings.text import (
    Inputs,
    Task,
    accuracy,
    encode,
    features,
    load,
    make_plan,
    name_of,
)
from experiments.settings.train import count_zeros, fingerprint

EMBEDDINGS = ("word", "position", "token_type", "norm")


@dataclass(frozen=True)
class FineTuneText:
    """Train the encoder's layers and the head with a recipe, from the pretrained weights.

    The embeddings stay as they are. Every method gets the same steps, batches and AdamW.
    """

    headline: ClassVar[str] = "accuracy"

    method: Recipe = dense
    sparsity: float = 0.0
    pattern: sj.Pattern = UNSTRUCTURED
    steps: int = 160
    batch_size: int = 16
    learning_rate: float = 2e-4
    """Peak of the one-cycle schedule."""
    weight_decay: float = 1e-2

    @property
    def label(self) -> str:
        """minilm-tuned-method-percent or pattern."""
        return f"minilm-tuned-{name_of(self.method, self.sparsity, self.pattern)}"

    def run(self, job: Job) -> dict[str, Any]:
        """Train, harden, test; goes on from a checkpoint in the job's folder."""
        task = load(job.data, job.seed, job.smoke)
        steps = 3 if job.smoke else self.steps
        network = make_network(task)
        plan = make_plan(network.params, self.pattern, self.sparsity)
        tx = self._optimizer(network, task, plan, steps, job.seed)
        clock = Clock(job.report, steps)
        with sj.checkpoint(job.folder) as checkpoints:
            state, history = train.train(
                train.make_step(make_gradients(network), tx),
                train.initial_state(network, tx),
                batches(task, batch_size=self.batch_size, seed=job.seed),
                num_steps=steps,
                checkpoints=checkpoints,
                measure=lambda state: {"sparsity": train.sparsity_of(state.opt_state)},
                measure_every=math.ceil(steps / 4),
                report=clock.tick,
            )
        params = train.hard_weights(state.params, state.opt_state)
        counts = count_zeros(params, plan)
        x = features(network.fixed | params["encoder"], task.test_inputs)
        return {
            "accuracy": accuracy(params["head"], x, task.test_labels),
            "test_sentences": len(task.test_labels),
            **counts,
            "planned_zeros": plan.num_pruned,
            "sparsity": counts["zeros"] / counts["prunable"],
            "ms_per_step": clock.median_ms(),
            "data": f"movie sentiment from {task.source}",
            "fingerprint": fingerprint(state._replace(params=params)),
            "history": history,
        }

    def _optimizer(
        self, network: "TextNetwork", task: Task, plan: sj.Plan, steps: int, seed: int
    ) -> optax.GradientTransformation:
        schedule = optax.schedules.cosine_onecycle_schedule(
            steps, self.learning_rate, pct_start=0.2
        )
        order = lambda: batches(task, batch_size=self.batch_size, seed=seed + 1_000_000)

        def some(count: int) -> list:
            iterator = order()
            return [next(iterator) for _ in range(count)]

        parts = DenseOptimizer(schedule, self.weight_decay)

        def loss(params: Any, batch: Any, *, temperature: float = 1.0) -> Any:
            return network.loss(params, *batch, temperature=temperature)[0]

        setup = Setup(
            plan=plan,
            steps=steps,
            steps_per_epoch=max(1, len(task.train_labels) // self.batch_size),
            params=network.params,
            optimizer=parts,
            loss=loss,
            apply=network.apply,
            batches=some,
            key=jax.random.key(seed),
        )
        return self.method(parts.transform(), setup)


class TextNetwork(NamedTuple):
    """The classifier: its trained params, the embeddings that are fixed, and no statistics."""

    params: dict[str, Any]
    fixed: dict[str, Any]
    statistics: tuple[()] = ()

    def apply(self, params: Any, inputs: Any) -> Float[Array, "batch 2"]:
        """Logits."""
        x = encode(self.fixed | params["encoder"], *inputs)
        return x @ params["head"]["kernel"] + params["head"]["bias"]

    def loss(
        self, params: Any, inputs: Any, labels: Array, *, temperature: float = 1.0
    ) -> tuple[Array, train.Metrics]:
        """The mean cross entropy of logits / temperature, and it again with the accuracy."""
        logits = self.apply(params, inputs) / temperature
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, train.Metrics(loss, (logits.argmax(-1) == labels).mean())


def make_network(task: Task) -> TextNetwork:
    """The pretrained encoder and the fitted head."""
    fixed = {name: task.params[name] for name in EMBEDDINGS}
    encoder = {name: leaf for name, leaf in task.params.items() if name not in EMBEDDINGS}
    return TextNetwork({"encoder": encoder, "head": task.head}, fixed)


def make_gradients(network: TextNetwork) -> Any:
    """As `train.make_gradients`."""

    @jax.jit
    def gradients(params, statistics, inputs, labels):
        grads, metrics = jax.grad(network.loss, has_aux=True)(params, inputs, labels)
        return grads, statistics, metrics

    return gradients


def batches(task: Task, *, batch_size: int, seed: int) -> grain.DatasetIterator:
    """Endless shuffled training batches ((ids, mask), labels); the position can be saved."""

    def gather(indices: np.ndarray) -> tuple[Inputs, np.ndarray]:
        ids, mask = task.train_inputs
        return (ids[indices], mask[indices]), task.train_labels[indices]

    indices = grain.MapDataset.range(len(task.train_labels)).seed(seed).shuffle().repeat()
    batched = indices.batch(batch_size, drop_remainder=True).map(gather)
    return iter(batched.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
