"""The setting of neural pruning search: a pattern and a rate for each layer within milliseconds.

Times are those of `measured/pruning.json`, which `python -m experiments.settings.search_pruning`
measures. A trial prunes the trained network at once, trains it for a few steps with its masks, and
is judged on training images that are held back; what is found is trained longer and tested.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from experiments.data.dataset import Dataset, standardize_like
from experiments.data.half_size import fashion_mnist_14
from experiments.models.small_conv import small_conv
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress
from experiments.settings.kept_steps import kept_steps, numbered_batches
from experiments.settings.searching import account, stopped_by_ctrl_c
from sparsejax.search.pruning_choices import RATES

FILE = Path(__file__).parent / "measured" / "pruning.json"
TIMED = 16  # images of a call
BLOCK = sj.Block(8, 4)  # of block-punched pruning
SINGLE, KERNEL, CHANNEL = sj.Unstructured(), sj.KernelPattern(), sj.Channel()
RULES = {
    r"three/\d/kernel": [SINGLE, BLOCK, KERNEL, CHANNEL],
    r"one/\d/kernel": [SINGLE, BLOCK, CHANNEL],
}
JUDGED = 1_000  # held-back images
STRENGTH = 5.0  # of accuracy for a millisecond too many: a tenth too long costs a third
PRETRAINING = Classify(
    dense, net=small_conv, data=fashion_mnist_14, prunable=r"(three|one)/\d/kernel", steps=600
)

Choice = dict[str, str]


class Space(NamedTuple):
    """The space, the milliseconds that are aimed at, and how a choice is judged."""

    space: sj.search.PruningSpace
    target: float
    evaluate: Callable[[Choice], Mapping[str, float]]
    num_trials: int
    job: Job


Found = tuple[Choice, list[sj.search.Trial]]
Searcher = Callable[[Space], Found]


def bayesian(given: Space) -> Found:
    """Neural pruning search: a Gaussian process and the expected improvement."""
    return _best(given, sj.search.bayesian)


def tpe(given: Space) -> Found:
    """Optuna's TPE."""
    return _best(given, sj.search.tpe)


def random_search(given: Space) -> Found:
    """As many trials at random: the control."""
    return _best(given, sj.search.random_search)


def _best(given: Space, sampler: Callable[..., sj.search.Sampler]) -> Found:
    with stopped_by_ctrl_c(given.job) as report:
        trials = sj.search.optimize(
            given.evaluate,
            sampler(given.space.space, seed=given.job.seed),
            num_trials=given.num_trials,
            file=given.job.folder / "trials.log",
            report=report,
        )
    return sj.search.best(trials).choice, trials


def uniform_single(given: Space) -> Found:
    """No search: single weights, at the lowest rate of all layers that is fast enough."""
    return _uniform(given, SINGLE), []


def uniform_block(given: Space) -> Found:
    """No search: block-punched, at the lowest rate of all layers that is fast enough."""
    return _uniform(given, BLOCK), []


def uniform_channel(given: Space) -> Found:
    """No search: channels, at the lowest rate of all layers that is fast enough."""
    return _uniform(given, CHANNEL), []


def unpruned(given: Space) -> Found:
    """The dense network, trained as long."""
    return dict.fromkeys(given.space.leaves, "dense"), []


def _uniform(given: Space, pattern: sj.Pattern) -> Choice:
    for rate in RATES:
        label = f"{pattern} at {rate:g}x" if rate > 1 else "dense"
        choice = dict.fromkeys(given.space.leaves, label)
        if given.space.milliseconds(choice) <= given.target:
            return choice
    raise ValueError(f"{pattern} is never fast enough for {given.target:.3g} ms.")


@dataclass(frozen=True)
class SearchPruning:
    """Search a plan, prune the trained network with it, train on, and test."""

    headline: ClassVar[str] = "accuracy"

    searcher: Searcher
    fraction: float = 0.65
    """The milliseconds aimed at, as a fraction of the dense network's."""
    num_trials: int = 40
    tried: int = 15
    """Steps of a trial."""
    steps: int = 300
    """Of what was found."""
    pretraining: Classify = PRETRAINING

    @property
    def label(self) -> str:
        """net-data-searcher-percent."""
        parts = (self.pretraining.net.__name__, self.pretraining.data.__name__)
        return "-".join([*parts, self.searcher.__name__, f"{100 * self.fraction:g}"])

    def run(self, job: Job) -> dict[str, Any]:
        """Pre-train or take what is there, search, train, test; goes on from the job's folder."""
        network, accuracy = Compress(dense, self.pretraining).pretrained(job)
        dataset = self.pretraining.data(job.data)
        space = sj.search.pruning_space(network.params, RULES, load_table())
        target = self.fraction * space.milliseconds(dict.fromkeys(space.leaves, "dense"))
        tuner = _Tuner(network, dataset, job)
        few = 3 if job.smoke else None

        def evaluate(choice: Choice) -> dict[str, float]:
            state = tuner.start(space.plan(choice))
            for number in range(few or self.tried):
                state, _ = tuner.step(state, number)
            found = tuner.accuracy(state, of_test=False)
            score = space.score(choice, found, target, STRENGTH)
            return {"score": score, "accuracy": found, "milliseconds": space.milliseconds(choice)}

        given = Space(space, target, evaluate, few or self.num_trials, job)
        choice, trials = self.searcher(given)
        state = tuner.start(space.plan(choice))
        state = kept_steps(job, "found", state, tuner.step, few or self.steps)
        return {
            "accuracy": tuner.accuracy(state, of_test=True),
            "accuracy_before": accuracy,
            "milliseconds": space.milliseconds(choice),
            "target": target,
            "times": f"measured on {space.table.machine}",
            "sparsity": space.plan(choice).sparsity,
            "choice": choice,
            "data": dataset.name,
            **(account(trials, "milliseconds", "accuracy") if trials else {}),
        }


class State(NamedTuple):
    """What a step reads and writes; masks hold True for dense leaves."""

    params: Any
    statistics: Any
    opt_state: Any
    masks: Any


class _Tuner:
    """Training with masks that are arguments: one program for all plans."""

    def __init__(self, network: train.Network, dataset: Dataset, job: Job):
        self._network, self._dataset = network, dataset
        self._batches = numbered_batches(dataset, job.seed, 64)
        self._tx = optax.adamw(1e-3)
        loss_of = sj.accelerate(train.make_loss(network))

        @jax.jit
        def update(state: State, images: Any, labels: Any) -> tuple[State, Any]:
            grads, (statistics, metrics) = jax.grad(loss_of, has_aux=True)(
                state.params, state.statistics, images, labels
            )
            updates, opt_state = self._tx.update(grads, state.opt_state, state.params)
            params = jax.tree.map(
                jnp.multiply, optax.apply_updates(state.params, updates), state.masks
            )
            return State(params, statistics, opt_state, state.masks), metrics.loss

        self._update = update
        self._apply = jax.jit(sj.accelerate(network.apply))

    def start(self, plan: sj.Plan) -> State:
        """The trained network, pruned at once."""
        params = self._network.params
        masks = sj.tree.map_with_paths(lambda path, leaf: _mask(plan.get(path), leaf), params)
        params = jax.tree.map(jnp.multiply, params, masks)
        return State(params, self._network.statistics, self._tx.init(params), masks)

    def step(self, state: State, number: int) -> tuple[State, Any]:
        return self._update(state, *self._batches(number, False))

    def accuracy(self, state: State, *, of_test: bool) -> float:
        """On the test images, or on some that were held back from training."""
        data = self._dataset
        images = data.test_images if of_test else data.train_images[-JUDGED:]
        labels = data.test_labels if of_test else data.train_labels[-JUDGED:]
        images, size = standardize_like(data.train_images)(images), 500
        parts = [
            np.asarray(self._apply((state.params, state.statistics), images[at : at + size]))
            for at in range(0, len(images), size)
        ]
        return float((np.concatenate(parts).argmax(-1) == labels).mean())


def _mask(leaf: Any, weights: Any) -> Any:
    """By magnitude; blocks as neural pruning search punches them."""
    values = np.asarray(weights)
    if leaf is None or not leaf.sparsity:
        return np.ones(values.shape, values.dtype)
    if leaf.pattern == BLOCK:
        return sj.search.block_punched(values, leaf.sparsity).astype(values.dtype)
    return np.asarray(leaf.pattern.mask(jnp.abs(values), leaf.sparsity)).astype(values.dtype)


def load_table() -> sj.budgets.LatencyTable:
    """The measured times, wherever they were measured."""
    return sj.budgets.LatencyTable.load(FILE, any_machine=True)


def measure() -> sj.budgets.LatencyTable:
    """The times on this machine."""
    network = train.built(functools.partial(small_conv, (14, 14, 1), 10, 0))
    apply = lambda params, x: network.apply((params, network.statistics), x)
    levels = sj.search.sparsities_of()
    x = jnp.ones((TIMED, 14, 14, 1))
    return sj.budgets.LatencyTable.measure(apply, network.params, RULES, x, sparsities=levels)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    measure().save(FILE)
    print(FILE.read_text())
