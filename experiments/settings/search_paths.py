"""The setting of ProxylessNAS: search the paths of a network, train what was found, test it.

Every way to search trains the weights of the network with all its paths for as many steps, and
looks at as many validation images. Times of paths are those of `measured/paths.json`, which
`python -m experiments.settings.search_paths` measures.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from experiments.data import datasets
from experiments.data.dataset import standardize_like
from experiments.data.half_size import fashion_mnist_14
from experiments.models import paths
from experiments.runs.table import Job
from experiments.settings.kept_steps import kept_steps, numbered_batches
from experiments.settings.path_searchers import POWER, Searcher, Work, scores
from experiments.settings.searching import account

FILE = Path(__file__).parent / "measured" / "paths.json"
TIMED = 32  # images of a call


@dataclass(frozen=True)
class SearchPaths:
    """Search paths, train the network that they make from the start, and test it."""

    headline: ClassVar[str] = "accuracy"

    searcher: Searcher
    data: datasets.Loader = fashion_mnist_14
    fraction: float = 0.6
    """The milliseconds aimed at, as a fraction of those of the slowest network."""
    warm_up: int = 100
    steps: int = 200
    every: int = 4
    """Steps of weights for each of alphas."""
    trained: int = 400
    """Steps of the network that was found."""
    batch_size: int = 64

    @property
    def label(self) -> str:
        """paths-data-searcher."""
        return f"paths-{self.data.__name__}-{self.searcher.__name__}"

    def run(self, job: Job) -> dict[str, Any]:
        """Search, train, test; goes on from what is in the job's folder."""
        costs = load_costs()
        cost_of = lambda choice: float(costs.of(choice))
        longest = cost_of([int(np.argmax(own)) for own in costs.edges])
        dataset, few = self.data(job.data), 8 if job.smoke else None
        batches = numbered_batches(dataset, job.seed, self.batch_size)
        work = Work(
            batches,
            costs,
            self.fraction * longest,
            few or self.warm_up,
            few or self.steps,
            self.every,
            functools.partial(kept_steps, job),
            job,
        )
        choice, trials = self.searcher(work)
        accuracy = self._accuracy(choice, work, dataset, few or self.trained)
        milliseconds = cost_of(choice)
        return {
            "accuracy": accuracy,
            "milliseconds": milliseconds,
            "reward": accuracy * (work.reference / milliseconds) ** POWER,
            "reference": work.reference,
            "costs": costs.source,
            "choice": list(choice),
            "data": dataset.name,
            **(account(trials, "milliseconds", "accuracy") if trials else {}),
        }

    def _accuracy(self, choice: tuple[int, ...], work: Work, dataset: Any, steps: int) -> float:
        """Of the network that was found, trained from the start."""
        tx = optax.adamw(optax.cosine_onecycle_schedule(steps, 4e-3, pct_start=0.2))

        @jax.jit
        def update(state: Any, batch: Any) -> Any:
            params, opt_state = state
            value_of = lambda params: scores(paths.chosen(params, choice, batch[0]), batch[1])[0]
            value, grads = jax.value_and_grad(value_of)(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        params = paths.initial(work.job.seed + 1_000)
        step = lambda state, number: update(state, work.batches(number, False))
        params, _ = work.loop("found", (params, tx.init(params)), step, steps)
        apply = jax.jit(lambda images: paths.chosen(params, choice, images))
        images = standardize_like(dataset.train_images)(dataset.test_images)
        parts = [np.asarray(apply(images[at : at + 500])) for at in range(0, len(images), 500)]
        return float((np.concatenate(parts).argmax(-1) == dataset.test_labels).mean())


def load_costs() -> sj.search.PathCosts:
    """The measured costs, wherever they were measured."""
    stored = json.loads(FILE.read_text())
    edges = tuple(tuple(own) for own in stored["edges"])
    return sj.search.PathCosts(edges, stored["fixed"], stored["source"])


def _calls() -> Iterator[list[Callable[[], Any]]]:
    """Of each edge, each path on a batch."""
    params = paths.initial(0)
    for edge, (own, shape) in enumerate(zip(params["edges"], paths.shapes(TIMED), strict=True)):
        x, runs = jnp.ones(shape), [jax.jit(path) for path in paths.paths_of(edge)]
        yield [lambda run=run, own=own, x=x: run(own, x) for run in runs]


def measure() -> sj.search.PathCosts:
    """The costs on this machine; stem and head as what is fixed."""
    params, images = paths.initial(0), jnp.ones((TIMED, 14, 14, 1))
    skip = jax.jit(lambda x: paths.logits(params, _cut, x))
    whole = sj.search.PathCosts.measure([[lambda: skip(images)]])
    return sj.search.PathCosts.measure(list(_calls()), fixed=whole.edges[0][0])


def _cut(edge: int, params: Any, x: Any) -> Any:
    """An edge that only makes the shape fit."""
    own = paths.EDGES[edge]
    x = x[:, :: own.stride, :: own.stride]
    return jnp.pad(x, ((0, 0),) * 3 + ((0, own.outputs - own.inputs),))


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(dataclasses.asdict(measure()), indent=1) + "\n")
    print(FILE.read_text())
