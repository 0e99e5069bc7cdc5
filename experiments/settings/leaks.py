"""What the execution of networks of eight families tells an attack, and one that is hardened."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

import sparsejax as sj
from experiments.models.block_families import (
    FAMILIES,
    BlockNet,
    Skeleton,
    grouped,
    random_skeleton,
    random_weights,
    separable,
)
from experiments.runs.table import Job
from experiments.runs.timing import time_ms
from sparsejax.audit import Observations
from sparsejax.audit.features import Sees

IMAGE, LARGER = (1, 16, 16, 3), (1, 32, 32, 3)


class Way(NamedTuple):
    """How a network runs: by jit or by `compile`, with so many zeros in its kernels."""

    compiled: bool = False
    sparsity: float = 0.0


def function(module: BlockNet, seed: int, way: Way) -> Callable:
    """The network as a function of images, its weights within."""
    images = jax.ShapeDtypeStruct(IMAGE, np.float32)
    variables = random_weights(module, images, seed, way.sparsity)
    if way.compiled:
        return sj.compile(module.apply, variables, images, tune=False)
    return partial(module.apply, variables)


@cache
def observed(way: Way, sees: Sees, skeletons: int, seed: int) -> Observations:
    """What is seen of networks of every family and setting on random skeletons."""
    nets = list(_nets(skeletons, seed))
    return Observations(
        [_seen(function(net, i, way), sees) for i, net in enumerate(nets)],
        [net.family.__name__ for net in nets],
        [net.setting for net in nets],
        [str(net.skeleton) for net in nets],
    )


def _nets(skeletons: int, seed: int) -> Iterator[BlockNet]:
    rng = np.random.default_rng(seed)
    for _ in range(skeletons):
        skeleton = random_skeleton(rng)
        for family, settings in FAMILIES.items():
            for setting in settings:
                yield BlockNet(skeleton, family, setting)


def _seen(fn: Callable, sees: Sees) -> dict[str, float]:
    image, larger = np.ones(IMAGE, np.float32), np.ones(LARGER, np.float32)
    return sj.audit.execution_features(fn, image, sees=sees, larger=(larger,))


@dataclass(frozen=True)
class Leaks:
    """How well an attack tells families and settings by what it sees of a way to run."""

    headline: ClassVar[str] = "accuracy"

    sees: Sees
    compiled: bool = False
    sparsity: float = 0.0
    skeletons: int = 6

    @property
    def label(self) -> str:
        """sees-how-sparsity."""
        return f"leaks-{self.sees}-{'compile' if self.compiled else 'jit'}-{self.sparsity:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Accuracies with their chance levels; `transferred` of an attack that knows dense jit."""
        skeletons = 2 if job.smoke else self.skeletons
        way = Way(self.compiled, self.sparsity)
        seen = observed(way, self.sees, skeletons, job.seed)
        attack = sj.audit.family_attack(seen, seed=job.seed)
        told, chances = zip(*attack.settings.values(), strict=True)
        result = {
            **attack.family._asdict(),
            "setting_accuracy": float(np.mean(told)),
            "setting_chance": float(np.mean(chances)),
            "confusion": [[*pair, n] for pair, n in attack.confusion.items()],
        }
        if way != Way():
            plain = observed(Way(), self.sees, skeletons, job.seed)
            score = sj.audit.transferred(plain, seen, seed=job.seed)
            result["transferred"] = score.accuracy
        return result


SECURED = Skeleton((32, 64, 64, 128, 128, 128), (1, 2, 1, 2, 1, 1))
GROUP_SIZES = (2, 4, 8, 16)


@dataclass(frozen=True)
class Hardening:
    """Separable blocks with groups in place of their depthwise convolutions, attacked.

    Attributes:
        sees: as of `Leaks`, whose networks the attack is fitted to.
        max_multiply_adds: of the hardened network, as a fraction of the original's.
    """

    headline: ClassVar[str] = "hidden"

    sees: Sees
    max_multiply_adds: float = 1.25
    skeletons: int = 6

    @property
    def label(self) -> str:
        """What is seen, and the budget."""
        return f"hardening-{self.sees}-{self.max_multiply_adds:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """The attack's confidence in separable blocks for each size of groups, cost and time.

        `hidden` is the confidence that the best within the budget takes away. Accuracies are not
        asked for here: those of MobileNet-v1 with such groups are rows of their own.
        """
        skeletons = 2 if job.smoke else self.skeletons
        seen = observed(Way(), self.sees, skeletons, job.seed)
        attack = sj.audit.family_attack(seen, seed=job.seed)
        nets = {1: BlockNet(SECURED, separable, 3)}
        nets |= {size: BlockNet(SECURED, grouped, size) for size in GROUP_SIZES}
        runs = {size: function(net, 0, Way()) for size, net in nets.items()}
        candidates = {
            size: sj.audit.Candidate(_seen(runs[size], self.sees), _multiply_adds(net))
            for size, net in nets.items()
        }
        told = {n: attack.confidence(c.features)["separable"] for n, c in candidates.items()}
        original = candidates.pop(1)
        found = sj.audit.harden_blocks(
            attack,
            "separable",
            original,
            {str(size): candidate for size, candidate in candidates.items()},
            accuracy=lambda name: math.inf,
            least_accuracy=0.0,
            max_multiply_adds=self.max_multiply_adds,
        )
        result = {
            "hidden": found.before - found.confidence,
            "taken": found.name,
            "confidence": {str(size): value for size, value in told.items()},
            "multiply_adds": {
                str(n): c.multiply_adds / original.multiply_adds for n, c in candidates.items()
            },
        }
        if self.sees != "program":  # else nothing of it is a matter of time
            image = np.ones(IMAGE, np.float32)
            jitted = {str(n): partial(jax.jit(run), image) for n, run in runs.items()}
            result["ms"] = time_ms(jitted, 3 if job.smoke else 25)
        return result


def _multiply_adds(net: BlockNet) -> int:
    image = jax.ShapeDtypeStruct(IMAGE, np.float32)
    variables = random_weights(net, image, 0)
    return sum(sj.multiply_adds(net.apply, variables, image).values())
