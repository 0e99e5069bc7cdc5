"""Four networks under deadlines on two cores: dense and pruned, under four ways to schedule them.

    python -m benchmarks.deadlines --json FILE --page timeline.html

A detector, a segmenter, a tracker and a classifier stand for the perception of a car; they are
untrained MobileNet-v1 of several sizes and a perceptron, and say nothing of accuracy. Both sides
run through `sj.compile`: dense, and with 90 % of the 1x1 convolutions' weights zero in blocks of
four, so that pruning is the only difference; a dense column by jax.jit stands beside them. WCETs
are p99s of calls on one pinned core with warm caches. Periods have the ratios 2 : 2 : 1 : 4,
scaled so that the dense networks need `--load` of each core; deadlines are the periods, and the
tracker waits for the detector.

Each row is simulated with the WCETs, run live on two pinned cores for the same horizon, and
simulated again in the times that the live jobs took. Late is the fraction of jobs that end after
their deadline, p99 the worst task's, in its periods; `agrees` is the fraction of jobs of which a
simulation says what the live run says. The replay's tells whether the simulation is one of the
live board, the other's besides whether the WCETs held.
Late jobs wait on, and each choice among those that wait takes Python's time: long runs of networks
that are late say more of Python than of them.
Expected: dense networks are late under any policy, as they need more than there is; pruned ones
are not.
"""

import argparse
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.models.variables import prune, random_statistics
from experiments.runs.cores import cpu_name, usable_cores
from sparsejax.text import table

RATIOS = {"detector": 2, "segmenter": 2, "tracker": 1, "classifier": 4}
SIZES = {"detector": (1.0, 192), "segmenter": (1.0, 160), "classifier": (0.5, 160)}
EDGES = (("detector", "tracker"),)
ENGINES = ("core0", "core1")


def networks(sparsity: float, smoke: bool) -> dict[str, tuple[Callable, Any, jax.Array]]:
    """Name -> function, variables, input."""
    found = {}
    for name, (width, size) in SIZES.items():
        model = MobileNetV1Linen(num_classes=10, width=0.25 if smoke else width)
        x = jnp.ones((1, 32 if smoke else size, 32 if smoke else size, 3))
        # Drawn without XLA, which compiles half a minute at each network's init.
        shapes = jax.eval_shape(model.init, jax.random.key(0), x)
        variables = random_statistics(jax.tree.map(drawn, shapes))
        if sparsity:
            variables = prune(variables, sj.Block(4, 1), sparsity)
        found[name] = (functools.partial(model.apply, train=False), variables, x)
    layers = [jax.random.normal(jax.random.key(i), (512, 512)) / 22 for i in range(4)]
    if sparsity:
        layers = [jnp.where(sj.Block(4, 1).mask(jnp.abs(w), sparsity), w, 0) for w in layers]
    return found | {"tracker": (perceptron, layers, jnp.ones((1, 512)))}


def drawn(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Normal weights with a variance of 2 over the inputs."""
    draws = np.random.default_rng(0).standard_normal(leaf.shape, np.float32)
    return jnp.asarray(draws * np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))), leaf.dtype)


def perceptron(layers: list[jax.Array], x: jax.Array) -> jax.Array:
    for weights in layers:
        x = jax.nn.relu(x @ weights)
    return x


def calls(sparsity: float, smoke: bool) -> dict[str, Callable[[], Any]]:
    """Name -> a call of the compiled network."""
    return {
        name: functools.partial(jax.jit(sj.compile(apply, variables, x)), x)
        for name, (apply, variables, x) in networks(sparsity, smoke).items()
    }


def dense_by_jax() -> dict[str, Callable[[], Any]]:
    return {
        name: functools.partial(jax.jit(functools.partial(apply, variables)), x)
        for name, (apply, variables, x) in networks(0.0, smoke=False).items()
    }


def pipeline_of(wcet_ns: Mapping[str, int], unit_ns: int) -> sj.deploy.Pipeline:
    """The tasks, where a WCET above a deadline, which no task may have, is the deadline."""
    tasks = []
    for name, ratio in RATIOS.items():
        time = min(wcet_ns[name], unit_ns * ratio)
        tasks.append(sj.deploy.Task(name, dict.fromkeys(ENGINES, time), unit_ns * ratio))
    return sj.deploy.Pipeline(tuple(tasks), EDGES)


def policies(pipeline: sj.deploy.Pipeline) -> dict[str, tuple[Any, Any]]:
    """Row -> (engine_of, policy)."""
    engine_of = sj.deploy.assign(pipeline, ENGINES, test=None).engine_of
    return {
        "FIFO": (None, sj.deploy.fifo),
        "RM, assigned": (engine_of, sj.deploy.rate_monotonic),
        "EDF": (None, sj.deploy.edf),
        "EDF, assigned": (engine_of, sj.deploy.edf),
        "EDF with boost, assigned": (engine_of, sj.deploy.boosted_edf(pipeline, engine_of)),
    }


def summary(run: sj.deploy.Run) -> dict[str, float]:
    worst = max(run.response_ns(name) / (run.of(name)[0].job.task.period_ns) for name in RATIOS)
    return {
        "jobs": len(run.ran),
        "late": round(run.miss_ratio, 4),
        "p99 in periods": round(worst, 3),
    }


def compare(
    functions: Mapping[str, Callable], wcet_ns: Mapping[str, int], unit_ns: int, seconds: float
) -> tuple[list[dict[str, Any]], sj.deploy.Run]:
    """A row for each way to schedule, and the last live run."""
    pipeline, rows = pipeline_of(wcet_ns, unit_ns), []
    cores = dict(zip(ENGINES, usable_cores(), strict=False))
    options: dict[str, Any] = {"horizon_ns": round(seconds * 1e9)}
    wcet = lambda job, engine: wcet_ns[job.task.name]
    for name, (engine_of, policy) in policies(pipeline).items():
        own = options | {"policy": policy}
        live = sj.deploy.run_live(pipeline, functions, engine_of, cores=cores, **own)
        row = {"schedule": name, "live": summary(live)}
        for way, takes_ns in (("simulated", wcet), ("replayed", sj.deploy.times_of(live))):
            found = sj.deploy.simulate(pipeline, engine_of, takes_ns=takes_ns, **own)
            agrees = sj.deploy.agreement(found, live).fraction
            row[way] = summary(found) | {"agrees": round(agrees, 4)}
        rows.append(row)
    return rows, live


def as_table(rows_of_side: Mapping[str, list[dict[str, Any]]]) -> str:
    """A line for each side and way to schedule it."""
    columns = ("", "schedule", "late", "p99", "simulated", "agrees", "replayed", "agrees")
    lines = [
        (
            side,
            row["schedule"],
            f"{row['live']['late']:.1%}",
            f"{row['live']['p99 in periods']:.2f}",
            *(
                f"{row[way][what]:.1%}"
                for way in ("simulated", "replayed")
                for what in ("late", "agrees")
            ),
        )
        for side, rows in rows_of_side.items()
        for row in rows
    ]
    return table("Live on two cores, and simulated", columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--page", type=Path, help="file for the timeline of the pruned networks")
    parser.add_argument("--load", type=float, default=1.3, help="of each core by dense networks")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each live run")
    parser.add_argument(
        "--smoke", action="store_true", help="small networks, half a second, no jax.jit"
    )
    options = parser.parse_args()
    if len(usable_cores()) < len(ENGINES):
        raise SystemExit(f"deadlines needs two cores, and may use {usable_cores()}.")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    num_calls, seconds = (20, 0.5) if options.smoke else (200, options.seconds)
    sides = {"dense": calls(0.0, options.smoke), "pruned": calls(0.9, options.smoke)}
    by_jax = {} if options.smoke else {"dense, jax.jit": dense_by_jax()}
    times = {
        side: {
            name: sj.deploy.measure_wcet(call, core=usable_cores()[0], num_calls=num_calls)
            for name, call in functions.items()
        }
        for side, functions in (sides | by_jax).items()
    }
    wcets = {side: {n: t.p99_ns for n, t in own.items()} for side, own in times.items()}
    needed = sum(wcets["dense"][name] / ratio for name, ratio in RATIOS.items())
    unit_ns = round(needed / (options.load * len(ENGINES)))
    results: dict[str, Any] = {"cpu": cpu_name(), "unit_ms": unit_ns / 1e6, "load": options.load}
    results["times"] = {s: {n: str(t) for n, t in own.items()} for s, own in times.items()}
    for side, functions in sides.items():
        results[side], run = compare(functions, wcets[side], unit_ns, seconds)
    if options.page:
        end = min(run.horizon_ns, 10**9)
        page = sj.deploy.timeline(run, title="Pruned, EDF with boost, live", end_ns=end)
        options.page.write_text(page, encoding="utf-8")
    publish(results, options.json)
    print(as_table({side: results[side] for side in sides}))


if __name__ == "__main__":
    main()
