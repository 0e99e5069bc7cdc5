"""Settings small enough for tests of the experiments' harness; functions at the top of a module."""

import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import sparsejax as sj
from experiments.data.dataset import Dataset
from experiments.recipes.magnitude import dense
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import Classify


def paper_of(*rows):
    """A paper of these rows and nothing else."""
    return types.SimpleNamespace(
        __name__="experiments.small2026", TITLE="Small", ROWS=rows, PAPER=(), CLAIMS=()
    )


@dataclass(frozen=True)
class Lookup:
    """What a table reads without anything being run."""

    headline: ClassVar[str] = "accuracy"
    name: str = ""

    @property
    def label(self):
        return self.name

    def run(self, job):
        raise NotImplementedError


class SmallPaper:
    """Small.

    Nobody, "Nothing", 2026, arXiv:0000.00000.
    """

    __name__ = "experiments.small"
    TITLE = "A small table"
    ROWS = (Row("a 90 %", Lookup("a"), 2), Row("b 90 %", Lookup("b")), Row("c", Lookup("c")))
    PAPER = (
        PaperNumber("a on ImageNet", 71.25, "% top-1", "table 1", "a 90 %"),
        PaperNumber("z on ImageNet", 10.0, "% top-1", "table 1"),
    )
    CLAIMS = (
        Claim("a > b", more("a 90 %", "b 90 %")),
        Claim("b > a", more("b 90 %", "a 90 %")),
        Claim("a > c", more("a 90 %", "c")),
    )


class SmallNet(nnx.Module):
    """A dense layer, batch norm, and a head."""

    def __init__(self, image, classes, seed):
        rngs = nnx.Rngs(seed)
        height, width, channels = image
        self.hidden = nnx.Linear(height * width * channels, 20, rngs=rngs)
        self.norm = nnx.BatchNorm(20, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(20, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.norm(self.hidden(x.reshape(len(x), -1)))))


def small_net(image, classes, seed):
    return SmallNet(image, classes, seed)


def bright_half(folder: Path | None) -> Dataset:
    """Noise whose left or right half is brighter, which anything learns."""
    random = np.random.default_rng(0)
    images = random.integers(0, 120, (600, 6, 6)).astype(np.uint8)
    labels = random.integers(0, 2, 600).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 3] += 60
    return Dataset(
        "halves", "", ("left", "right"), images[:400], labels[:400], images[400:], labels[400:]
    )


SMALL_TRAINING = Classify(
    dense,
    net=small_net,
    data=bright_half,
    prunable="hidden/kernel",
    steps=24,
    batch_size=16,
    learning_rate=2e-2,
)


def gmp(tx, setup):
    return sj.sparsify(tx, sj.gmp(2, 10, every=1), setup.plan, key=setup.key)


def gmp_straight_through(tx, setup):
    method = sj.gmp(2, 10, every=1, regrow=True)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, reparam=sj.soft.straight_through())


def looks_at_everything(tx, setup):
    """A recipe that uses all that a setup has."""
    (batch, second) = setup.batches(2)
    assert not np.array_equal(batch[0], second[0])
    grads = jax.grad(setup.loss)(setup.params, batch)
    _, tangents = jax.jvp(jax.grad(lambda p: setup.loss(p, batch)), (setup.params,), (grads,))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tangents))
    assert setup.apply(setup.params, batch[0]).shape == (len(batch[1]), 2)
    assert setup.steps_per_epoch == 400 // 16 or setup.steps == 20
    return gmp(tx, setup)
