"""The setting of "Mobile or FPGA": bits, blocks and sparsities for a device of which a model is.

Milliseconds and joules are of the model of an example device, and said so; what this machine takes
is measured where its counters can be read.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.searching import (
    Ground,
    Make,
    account,
    accuracy_of,
    ground_of,
    searched,
)

BITS, ROWS = (4, 8, 16), (1, 4, 8, 16)
STAGES = ("early", "middle", "late")
LIMITS = (0.0, 0.95)
DEVICES = {"mobile": sj.search.example_mobile, "fpga": sj.search.example_fpga}


class Blocks(NamedTuple):
    """Bits everywhere; of the pruned layers the rows of a group, and their sparsities by stage."""

    bits: int
    rows: int
    early: float
    middle: float
    late: float


SINGLE_WEIGHTS = Blocks(8, 1, 0.8, 0.8, 0.8)
SPACE: Any = {
    "bits": BITS,
    "rows": ROWS,
    **dict.fromkeys(STAGES, sj.search.Interval(*LIMITS)),
}


@dataclass(frozen=True)
class SearchBlocks:
    """Train a classifier, search bits, blocks and sparsities for a device, tune and test.

    A choice is pruned by magnitude, tuned for some steps through the rounding, and tested on
    validation images; what costs more joules than the limit loses accuracy in proportion.
    """

    headline: ClassVar[str] = "accuracy"

    sampler: Make | None
    """None for `fixed`."""
    pretraining: Classify
    device: Callable[[], sj.search.DeviceModel] = sj.search.example_mobile
    limit: float = 0.35
    """Joules, of the dense network's at 8 bits, by the model."""
    fixed: Blocks = SINGLE_WEIGHTS
    num_trials: int = 24
    trial_steps: int = 30
    steps: int = 300
    """After the search."""
    learning_rate: float = 1e-3

    @property
    def label(self) -> str:
        """pretraining-device-sampler-percent, or the fixed numbers."""
        if self.sampler is None:
            return f"{self.pretraining.label}-blocks-{self.fixed.rows}-{self.fixed.bits}_bits"
        device = self.device.__name__
        return f"{self.pretraining.label}-{device}-{self.sampler.__name__}-{100 * self.limit:g}"

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, search, tune, test."""
        ground = ground_of(self.pretraining, job)
        tuner = _Tuner(self, ground, job)
        chosen, kept = self.fixed, {}
        if self.sampler is not None:
            evaluate = functools.partial(self._evaluate, tuner, ground)
            trials = searched(job, evaluate, self.sampler, SPACE, None, self.num_trials)
            chosen = Blocks(**sj.search.best(trials).choice)
            kept = account(trials, "modelled_joules")
        steps = min(self.steps, 3) if job.smoke else self.steps
        accuracies: list[float] = []
        energy = sj.search.measured_energy(
            lambda: accuracies.append(tuner.tuned(chosen, steps, ground.test))
        )
        return {
            "accuracy": accuracies[0],
            "accuracy_before": ground.accuracy,
            "chosen": list(chosen),
            "bits": chosen.bits,
            "sparsity": tuner.sparsity(chosen),
            "measured_joules_of_tuning": energy.joules,
            **_modelled(tuner, chosen),
            **kept,
        }

    def _evaluate(
        self, tuner: "_Tuner", ground: Ground, choice: Mapping[str, Any]
    ) -> dict[str, float]:
        own, device = Blocks(**choice), self.device()
        limit = self.limit * tuner.modelled(Blocks(8, 0, 0.0, 0.0, 0.0), device).joules
        accuracy = tuner.tuned(own, self.trial_steps, ground.validation)
        joules = tuner.modelled(own, device).joules
        return {
            "score": accuracy - max(0.0, joules / limit - 1.0),
            "validation_accuracy": accuracy,
            "modelled_joules": joules,
        }


def _modelled(tuner: "_Tuner", chosen: Blocks) -> dict[str, float]:
    """What the models of both devices say."""
    found = {name: tuner.modelled(chosen, make()) for name, make in DEVICES.items()}
    return {
        f"modelled_{what}_{name}": getattr(own, what)
        for name, own in found.items()
        for what in ("seconds", "joules")
    }


class _Tuner:
    """Prunes and tunes choices; one program for all of them."""

    def __init__(self, setting: SearchBlocks, ground: Ground, job: Job):
        self._network, self._job = ground.network, job
        network, pretraining = ground.network, setting.pretraining
        call = lambda params, statistics, x: network.apply((params, statistics), x)
        example = (network.params, network.statistics, ground.calibration)
        self._layers = sj.search.weight_layers(call, *example[:2], ground.image)
        self._grids = sj.search.layer_grids(call, *example, high=8)
        plan = sj.plan(network.params, {pretraining.prunable: sj.Unstructured()}, sparsity=0.0)
        self._stages = _stages([leaf.path for leaf in plan.leaves], self._layers)
        self._batches = pretraining.batches(pretraining.data(job.data), job.seed, 64)
        self._optimizer = optax.adam(setting.learning_rate)
        self._run = sj.search.rounded(call)
        self._accuracies: dict[int, Any] = {}
        self._step = jax.jit(functools.partial(_step, network, self._optimizer))

    def tuned(self, own: Blocks, steps: int, part: tuple[np.ndarray, np.ndarray]) -> float:
        """The accuracy after pruning and some steps."""
        masks, grids = self._masks(own), self._at(own.bits)
        params, statistics = self._network.params, self._network.statistics
        state = self._optimizer.init(params)
        for number in range(steps):
            batch = self._batches[number % len(self._batches)]
            scale = 0.5 * (1.0 + math.cos(math.pi * number / steps))
            params, statistics, state = self._step(
                params, statistics, state, masks, grids, scale, *batch
            )
        if id(part) not in self._accuracies:
            self._accuracies[id(part)] = accuracy_of(self._run, part)
        return self._accuracies[id(part)](_masked(params, masks), grids, statistics)

    def modelled(self, own: Blocks, device: sj.search.DeviceModel) -> sj.search.Modelled:
        """What the device's model says of a frame."""
        total = sj.search.Modelled(device.name, 0.0, 0.0)
        for layer in self._layers:
            sparsity = getattr(own, self._stages[layer.path]) if layer.path in self._stages else 0.0
            total = total + device.layer(
                layer,
                weight_bits=own.bits,
                input_bits=own.bits,
                density=1.0 - sparsity,
                group_size=own.rows if sparsity else 0,
            )
        return total

    def sparsity(self, own: Blocks) -> float:
        """Zeros of the pruned layers."""
        masks = dict(sj.tree.leaves_with_paths(self._masks(own)))
        kept = [np.asarray(masks[path]) for path in self._stages]
        return 1.0 - sum(int(mask.sum()) for mask in kept) / sum(mask.size for mask in kept)

    def _at(self, bits: int) -> Any:
        """The grids; nothing is rounded at 16 bits, which would change nothing."""
        paths = self._grids.weight_steps
        return self._grids.at(dict.fromkeys(paths, (bits, bits)) if bits <= 8 else {})

    def _masks(self, own: Blocks) -> Any:
        pattern = sj.Unstructured() if own.rows == 1 else sj.Block(own.rows, 1)

        def mask(path: str, leaf: Any) -> Any:
            if path not in self._stages:
                return jnp.ones((), jnp.float32)
            sparsity = getattr(own, self._stages[path])
            return pattern.mask(jnp.abs(leaf), sparsity).astype(jnp.float32)

        return sj.tree.map_with_paths(mask, self._network.params)


def _stages(paths: Sequence[str], layers: Sequence[sj.search.WeightLayer]) -> dict[str, str]:
    """A third of the pruned layers for each stage, in the order in which they run."""
    ordered = [layer.path for layer in layers if layer.path in paths]
    return {path: STAGES[3 * number // len(ordered)] for number, path in enumerate(ordered)}


def _masked(params: Any, masks: Any) -> Any:
    return jax.tree.map(jnp.multiply, params, masks)


def _step(
    network: train.Network,
    optimizer: optax.GradientTransformation,
    params: Any,
    statistics: Any,
    state: Any,
    masks: Any,
    grids: Any,
    scale: Any,
    images: Any,
    labels: Any,
) -> Any:
    """A step of the kept weights through the rounding."""
    loss_of = sj.accelerate(sj.search.rounded(train.make_loss(network)))
    loss = lambda params: loss_of(_masked(params, masks), grids, statistics, images, labels)
    grads, (statistics, _) = jax.grad(loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state, params)
    updates = jax.tree.map(lambda own: scale * own, updates)
    return optax.apply_updates(params, updates), statistics, state
