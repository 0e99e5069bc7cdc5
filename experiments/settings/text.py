"""The setting of one-shot pruning: MiniLM and a linear head on movie sentiment, no training.

The classifier is the mean of a sentence's token features, scaled to length 1, and a logistic
regression on the dense encoder's features; it and everything else stay as they are when the encoder
is pruned. Sparsity is over the dense layers of the encoder: 10.6 M of 22.7 M weights, the
embeddings are most of the others.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import sparsejax as sj
from experiments.data import sentiment
from experiments.models import minilm
from experiments.recipes.calibrated import Pruner, unpruned
from experiments.runs.table import Job, Row
from experiments.settings.classify import UNSTRUCTURED
from experiments.settings.train import count_zeros

PRUNABLE = r"layer\d+_(query|key|value|out|up|down)/kernel"
BATCH = 64  # sentences that are encoded at once
NUM_HEAD = 2_000  # training sentences that the head is fitted to
NUM_TEST = 1_000  # sentences of the test set that are used
PERCENTS = (50, 60, 70, 80)
SMOKE = 64  # sentences of each kind in a smoke run

Inputs = tuple[np.ndarray, np.ndarray]  # ids and mask


class Task(NamedTuple):
    """Tokenized sentences, the encoder's params, a head fitted to its features, test features."""

    source: str
    train_inputs: Inputs
    train_labels: Int[np.ndarray, " train"]
    test_inputs: Inputs
    test_labels: Int[np.ndarray, " test"]
    params: dict[str, Any]
    head: dict[str, Array]
    test_features: Float[np.ndarray, "test features"]


@functools.cache
def load(folder: Path | None, seed: int, smoke: bool) -> Task:
    """The task; a seed has its own order of the training sentences, the head sees the first."""
    data, pretrained = sentiment.movie_sentiment(folder), minilm.load(folder)
    order = np.random.default_rng(seed).permutation(len(data.train_texts))
    order = order[:SMOKE] if smoke else order
    num_test = SMOKE if smoke else NUM_TEST
    train_inputs = pretrained.tokenize([data.train_texts[i] for i in order])
    test_inputs = pretrained.tokenize(data.test_texts[:num_test])
    params, labels = pretrained.variables["params"], data.train_labels[order]
    return Task(
        data.source,
        train_inputs,
        labels,
        test_inputs,
        data.test_labels[:num_test],
        params,
        fit_head(features(params, first(train_inputs, NUM_HEAD)), labels[:NUM_HEAD]),
        features(params, test_inputs),
    )


def first(inputs: Inputs, count: int) -> Inputs:
    """The first sentences."""
    ids, mask = inputs
    return ids[:count], mask[:count]


def encode(params: Any, ids: Array, mask: Array) -> Float[Array, "batch features"]:
    """The features of sentences."""
    tokens, _ = minilm.MiniLM().apply({"params": params}, ids, mask)
    return minilm.sentence_features(tokens, mask)


_encode = jax.jit(encode)


def features(params: Any, inputs: Inputs) -> Float[np.ndarray, "sentences features"]:
    """The features of all sentences, in batches of one size."""
    parts = []
    for start in range(0, len(inputs[0]), BATCH):
        batch = [array[start : start + BATCH] for array in inputs]
        missing = BATCH - len(batch[0])
        padded = (np.pad(array, ((0, missing), (0, 0)), mode="edge") for array in batch)
        parts.append(np.asarray(_encode(params, *padded))[: len(batch[0])])
    return np.concatenate(parts)


def fit_head(
    x: Float[np.ndarray, "sentences features"],
    labels: Int[np.ndarray, " sentences"],
    *,
    penalty: float = 0.1,
) -> dict[str, Array]:
    """A logistic regression by Newton's method, as the kernel and bias of two logits."""
    rows = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
    ridge = penalty * np.eye(rows.shape[1])
    ridge[-1, -1] = 1e-6  # the bias is free
    weights = np.zeros(rows.shape[1])
    for _ in range(20):
        chances = 1.0 / (1.0 + np.exp(-rows @ weights))
        gradient = rows.T @ (chances - labels) + ridge @ weights
        hessian = (rows.T * (chances * (1.0 - chances))) @ rows + ridge
        weights -= np.linalg.solve(hessian, gradient)
    both = np.stack([-weights, weights], axis=1) / 2
    return {
        "kernel": jnp.asarray(both[:-1], jnp.float32),
        "bias": jnp.asarray(both[-1], jnp.float32),
    }


def accuracy(head: dict[str, Array], x: np.ndarray, labels: np.ndarray) -> float:
    """How many sentences the head sorts right."""
    logits = x @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    return float((logits.argmax(1) == labels).mean())


def make_plan(params: Any, pattern: sj.Pattern, sparsity: float) -> sj.Plan:
    """The same sparsity for each of the encoder's dense layers."""
    return sj.plan(params, {PRUNABLE: pattern}, sparsity=sparsity)


def name_of(method: Any, sparsity: float, pattern: sj.Pattern) -> str:
    """The method's part of a label, with its sparsity or pattern."""
    amount = f"{100 * sparsity:g}" if pattern == UNSTRUCTURED else str(pattern)
    return f"{method.__name__}-{amount}"


@dataclass(frozen=True)
class OneShotText:
    """Prune the encoder without any training and test it with the dense encoder's head."""

    headline: ClassVar[str] = "accuracy"

    method: Pruner = unpruned
    sparsity: float = 0.0
    pattern: sj.Pattern = UNSTRUCTURED
    num_calibration: int = 128
    """Training sentences whose activations the methods see."""

    @property
    def label(self) -> str:
        """minilm-movies-method-percent or pattern."""
        return f"minilm-movies-{name_of(self.method, self.sparsity, self.pattern)}"

    def run(self, job: Job) -> dict[str, Any]:
        """Prune and test; nothing to go on from, it is short."""
        task = load(job.data, job.seed, job.smoke)
        plan = make_plan(task.params, self.pattern, self.sparsity)
        job.report(0, 2, {})
        started = time.perf_counter()
        calibrate = functools.partial(self._calibrate, task, plan)
        pruned = jax.block_until_ready(self.method(task.params, plan, calibrate))
        seconds = time.perf_counter() - started
        job.report(1, 2, {})
        before, after = task.test_features, features(pruned, task.test_inputs)
        counts = count_zeros(pruned, plan)
        return {
            "accuracy": accuracy(task.head, after, task.test_labels),
            "dense_accuracy": accuracy(task.head, before, task.test_labels),
            "cosine_to_dense": float((before * after).sum(1).mean()),
            "test_sentences": len(task.test_labels),
            **counts,
            "planned_zeros": plan.num_pruned,
            "sparsity": counts["zeros"] / counts["prunable"],
            "pruning_seconds": seconds,
            "data": f"movie sentiment from {task.source}",
        }

    def _calibrate(self, task: Task, plan: sj.Plan, gram: bool) -> dict[str, sj.post.LayerInputs]:
        inputs = first(task.train_inputs, self.num_calibration)
        starts = range(0, len(inputs[0]), BATCH)
        batches = [tuple(array[i : i + BATCH] for array in inputs) for i in starts]
        return sj.post.calibrate(encode, task.params, plan, batches, gram=gram)


def one_shot_rows(name: str, method: Pruner) -> tuple[Row, ...]:
    """A method's rows "name 50 %" to "name 80 %" and "name 2:4": three seeds at 60 % and 2:4."""
    settings = {f"{name} {percent} %": OneShotText(method, percent / 100) for percent in PERCENTS}
    settings[f"{name} 2:4"] = OneShotText(method, 0.5, sj.NM(2, 4))
    seeds = {f"{name} 60 %": 3, f"{name} 2:4": 3}
    return tuple(Row(row, setting, seeds.get(row, 1)) for row, setting in settings.items())
