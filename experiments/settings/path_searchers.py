"""Ways to search the paths of a network, at equal cost: functions (work) -> (paths, trials)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from experiments.models import paths
from experiments.runs.table import Job
from experiments.settings.searching import stopped_by_ctrl_c

POWER = 0.1  # of the reward
PER_ALPHAS = 6  # forward passes that a step of alphas with two candidates comes to


class Work(NamedTuple):
    """What a search is given.

    Attributes:
        batches: `batches(step, of_validation) -> (images, labels)`.
        costs: of the paths.
        reference: milliseconds that are aimed at.
        warm_up, steps: of random paths, and of weights in the search.
        every: steps of weights for each one of alphas.
        loop: `loop(name, state, step, num_steps) -> state`, which keeps the state.
        job: of the record.
    """

    batches: Callable[[int, bool], Any]
    costs: sj.search.PathCosts
    reference: float
    warm_up: int
    steps: int
    every: int
    loop: Callable[..., Any]
    job: Job

    @property
    def num_looks(self) -> int:
        """Validation batches that a search may look at."""
        return PER_ALPHAS * max(1, self.steps // self.every)


Found = tuple[tuple[int, ...], list[sj.search.Trial]]
Searcher = Callable[[Work], Found]


def loss(params: Any, alphas: Any, gates: Any, batch: Any) -> Any:
    """The cross entropy of the network whose gates choose, and its accuracy."""
    return scores(paths.gated(params, alphas, gates, batch[0]), batch[1])


def scores(logits: Any, labels: Any) -> Any:
    value = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return value, (logits.argmax(-1) == labels).mean()


def gradient_product(work: Work) -> Found:
    """By gradients, with the loss times a power of the logarithm of the expected cost."""
    micros = _in_microseconds(work.costs)
    term = sj.search.times_log_cost(1e3 * work.reference)
    return _searched(
        work, sj.search.proxyless(loss, _tx(work), micros, term, alphas_tx=_gates_tx())
    )


def gradient_sum(work: Work) -> Found:
    """By gradients, with the loss plus the expected cost above the reference."""
    term = sj.search.plus_cost(work.reference)
    search = sj.search.proxyless(loss, _tx(work), work.costs, term, alphas_tx=_gates_tx())
    return _searched(work, search)


def reinforce(work: Work) -> Found:
    """By REINFORCE, with as many samples as make the same number of forward passes."""
    search = sj.search.proxyless_reinforce(
        loss,
        _tx(work),
        work.costs,
        work.reference,
        num_samples=PER_ALPHAS,
        power=POWER,
        alphas_tx=_gates_tx(),
    )
    return _searched(work, search)


def tpe(work: Work) -> Found:
    """By Optuna's TPE on the network that random paths were trained in."""
    return _tried(work, sj.search.tpe)


def random_search(work: Work) -> Found:
    """At random on the same network: the control."""
    return _tried(work, sj.search.random_search)


def slowest(work: Work) -> Found:
    """No search: the slowest path of each edge."""
    return tuple(int(np.argmax(own)) for own in work.costs.edges), []


def fastest(work: Work) -> Found:
    """No search: the fastest path of each edge that is no identity."""
    count = len(paths.KINDS)
    return tuple(int(np.argmin(own[:count])) for own in work.costs.edges), []


def _tx(work: Work) -> optax.GradientTransformation:
    total = work.warm_up + work.steps
    return optax.adamw(optax.cosine_onecycle_schedule(total, 4e-3, pct_start=0.2))


def _gates_tx() -> optax.GradientTransformation:
    # The authors' 1e-3 is for tens of thousands of steps.
    return sj.search.adam_for_gates(0.1)


def _in_microseconds(costs: sj.search.PathCosts) -> sj.search.PathCosts:
    """The logarithm's reference must be above 1."""
    edges = tuple(tuple(1e3 * own for own in edge) for edge in costs.edges)
    return dataclasses.replace(costs, edges=edges, fixed=1e3 * costs.fixed)


def _searched(work: Work, search: sj.search.Proxyless) -> Found:
    def step(state: Any, number: int) -> Any:
        images = work.batches(number, False)
        if number < work.warm_up:
            return search.warm_up(state, images)
        state, value = search.train_weights(state, images)
        if (number - work.warm_up) % work.every == work.every - 1:
            state, _ = search.train_alphas(state, work.batches(number, True))
        return state, value

    seed = work.job.seed
    state = search.init(paths.initial(seed), paths.NUM_PATHS, jax.random.key(seed))
    state = work.loop("search", state, step, work.warm_up + work.steps)
    return tuple(int(own.argmax()) for own in state.alphas), []


def _tried(work: Work, sampler: Callable[..., sj.search.Sampler]) -> Found:
    """The best of as many networks as a search looks at batches, one batch each."""
    search = sj.search.proxyless(loss, _tx(work), work.costs, sj.search.plus_cost(work.reference))
    seed = work.job.seed
    state = search.init(paths.initial(seed), paths.NUM_PATHS, jax.random.key(seed))
    step = lambda state, number: search.warm_up(state, work.batches(number, False))
    state = work.loop("search", state, step, work.warm_up + work.steps)
    judge = jax.jit(
        lambda params, active, images: loss(
            params,
            state.alphas,
            [sj.search.Gate(one, jnp.arange(0)) for one in active],
            images,
        )[1]
    )

    def evaluate(choice: Any) -> dict[str, float]:
        active = np.array(list(choice.values()), np.int32)
        images = work.batches(int(active @ 5 ** np.arange(len(active))), True)
        accuracy = float(judge(state.params, active, images))
        cost = float(work.costs.of(active.tolist()))
        reward = accuracy * (work.reference / cost) ** POWER
        return {"score": reward, "accuracy": accuracy, "milliseconds": cost}

    space = {f"edge {i}": tuple(range(count)) for i, count in enumerate(paths.NUM_PATHS)}
    with stopped_by_ctrl_c(work.job) as report:
        trials = sj.search.optimize(
            evaluate,
            sampler(space, seed=seed),
            num_trials=work.num_looks,
            file=work.job.folder / "trials.log",
            report=report,
        )
    return tuple(sj.search.best(trials).choice.values()), trials
