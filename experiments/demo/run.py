"""Train sparse, run sparse on real data: MobileNet-v1 on Fashion-MNIST, dense and 90 % pruned.

    python -m experiments.demo [--smoke] [--fresh] [--output demo-output]

Two trainings from the same initial weights, with the same batches, steps and learning rates: dense
with AdamW, and sparse with AdamW, an R2 penalty and gradual magnitude pruning of the 1x1
convolutions. Then the sparse network is compiled, checked and timed. Ctrl-C stops after the step in
progress and the same command goes on from there, bit for bit.

It trains as long as leaves the whole, set-up included, at about eight minutes: a gradient is timed,
then it says how many steps that is. `--steps` asks for a number; `--smoke` takes 20.
Written to the output folder: report.html, results.json, the weights as dense.npz and sparse.npz,
the networks as dense.sjx and sparse.sjx with networks.json, checkpoint/.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

import sparsejax as sj
from experiments.data import fashion
from experiments.data.dataset import Dataset, batches, standardize_like
from experiments.demo import report_page
from experiments.demo.latency import build
from experiments.demo.measure import check_compiled, measure_latency
from experiments.demo.settings import Demo, affordable_steps, keep_recipe, prepare
from experiments.demo.showcase import samples, write_networks, write_weights
from experiments.runs.cores import usable_cores
from experiments.runs.progress import training_bar
from experiments.runs.table import Interrupted
from experiments.runs.timing import show
from experiments.settings.train import (
    CannotGoOnError,
    Network,
    TrainState,
    built,
    count_zeros,
    fingerprint,
    initial_state,
    make_evaluate,
    make_gradients,
    make_step,
    sparsity_of,
    train,
)

TIMING_SECONDS = 75  # of the checks and timings after the trainings, about


def main(demo: Demo) -> None:
    """Run what is left to do and write the report; exits with 130 after Ctrl-C."""
    demo, console, started = demo.sized(), Console(), time.perf_counter()
    demo = prepare(demo)
    sj.keep_freed_memory()
    # A run that goes on after Ctrl-C need not compile again.
    jax.config.update("jax_compilation_cache_dir", str((demo.output / "checkpoint/xla").absolute()))
    console.print("Two trainings, then timing.")
    console.print("Ctrl-C saves and stops; the same command goes on from there.")
    dataset = fashion.load(say=console.print)
    try:
        results, variables = train_both(demo, dataset, console)
    except Interrupted as stop:
        console.print(f"[yellow]Stopped {stop}.[/] Saved; the same command goes on from there.")
        sys.exit(130)
    except CannotGoOnError as error:
        sys.exit(f"{error} Or pass --fresh to begin anew.")
    with console.status("Measuring latency on one core"):
        results["latency"] = measure_latency(
            demo.output / "checkpoint",
            demo.shape(dataset),
            variables["dense"],
            variables["sparse"],
            smoke=demo.smoke,
        )
    for name, heading in (("trained", "The trained network"), ("224", "MobileNet-v1 1.0/224")):
        if name in results["latency"]:
            show(heading, results["latency"][name])
    results["seconds_since_last_start"] = time.perf_counter() - started
    (demo.output / "results.json").write_text(json.dumps(results, indent=1))
    report_page.write(demo.output / "report.html", results, variables["masks"])
    console.print(
        f"Written: {demo.output}/report.html, results.json, dense and sparse as .npz and .sjx"
    )
    console.print(f"Took {results['seconds_since_last_start']:.0f} s")


def make_optimizers(demo: Demo, params: Any) -> tuple[dict[str, Any], sj.Plan]:
    """The dense and the sparse optimizer, and the plan of the sparse one.

    Pruned are the 1x1 convolutions, 96 % of all weights; the stem, the depthwise convolutions and
    the head stay dense, as in Gale et al., arXiv:1902.09574, and so do biases and norms.
    """
    schedule = optax.schedules.cosine_onecycle_schedule(
        demo.steps, demo.learning_rate, pct_start=0.2
    )
    adamw = optax.adamw(schedule, weight_decay=demo.weight_decay)
    rules = {r"pointwise/kernel": sj.Unstructured()}
    plan = sj.plan(params, rules, sparsity=demo.sparsity, allocate=sj.allocate.erk)
    begin, end = demo.steps // 5, demo.steps * 3 // 4
    method = sj.gmp(begin, end, every=max(1, demo.steps // 100))
    r2 = sj.add_penalty(sj.linf(), demo.penalty, where=r"pointwise/kernel")
    sparse = sj.sparsify(optax.chain(r2, adamw), method, plan, key=jax.random.key(demo.seed))
    return {"dense": adamw, "sparse": sparse}, plan


def train_both(
    demo: Demo, dataset: Dataset, console: Console
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of both trainings, and the trained variables and masks."""
    network = built(lambda: build(**demo.shape(dataset)))
    standardize = standardize_like(dataset.train_images)
    test = slice(0, 500 if demo.smoke else None)
    images, labels = standardize(dataset.test_images[test]), dataset.test_labels[test]
    evaluate = make_evaluate(network, images, labels, batch_size=500)
    gradients = make_gradients(network)
    first = next(batches(dataset, batch_size=demo.batch_size, seed=demo.seed))
    demo = with_steps(demo, gradients, network, first, console)
    optimizers, plan = make_optimizers(demo, network.params)
    results: dict[str, Any] = {
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "train": len(dataset.train_labels),
            "test": len(labels),
        },
        "recipe": demo.recipe(),
        "machine": {"cores": len(usable_cores()), "jax": jax.__version__},
    }
    states = {}
    for name, tx in optimizers.items():
        step, state = make_step(gradients, tx), initial_state(network, tx)
        states[name], history = train_one(name, demo, dataset, step, state, evaluate, console)
        results[name] = {
            "accuracy": evaluate(states[name].params, states[name].statistics),
            "history": history,
            "fingerprint": fingerprint(states[name]),
        }
        console.print(f"{name}: test accuracy {results[name]['accuracy']:.2%}")
    sparse = states["sparse"]
    results["sparse"] |= count_zeros(sparse.params, plan)
    apply_params = lambda params, x: network.apply((params, sparse.statistics), x)
    report = sj.report(
        sparse.params, plan, sparse.opt_state, apply_fn=apply_params, example=images[:1]
    )
    print(report, flush=True)  # it fits 80 columns by itself
    results["report"] = report.to_dict()
    results["compile"], predicted = check_compiled(network, states, images, labels, console.print)
    results["samples"] = samples(dataset, **predicted)
    results["bytes"] = write_weights(demo.output, states, plan)
    write_networks(demo.output, network.apply, states, dataset, standardize)
    leaves = sj.tree.leaves_with_paths(sj.masks_of(sparse.opt_state))
    masks = {path: np.asarray(mask) for path, mask in leaves if plan.get(path)}
    variables = {name: (state.params, state.statistics) for name, state in states.items()}
    return results, {**variables, "masks": masks}


def train_one(
    name: str,
    demo: Demo,
    dataset: Dataset,
    step: Callable,
    state: TrainState,
    evaluate: Callable,
    console: Console,
) -> tuple[TrainState, list[dict]]:
    """One of the two trainings with its progress bar and its checkpoints."""
    order = batches(dataset, batch_size=demo.batch_size, seed=demo.seed)
    last = {"sparsity": 0.0}

    def measure(state: TrainState) -> dict[str, float]:
        last["sparsity"] = sparsity_of(state.opt_state)
        limit = 2_000  # a look on the way; the end is measured on all
        return {"test_accuracy": evaluate(state.params, state.statistics, limit), **last}

    with (
        sj.checkpoint(demo.output / "checkpoint" / name) as checkpoints,
        training_bar(name, demo.steps, console) as show,
    ):

        def report(state: TrainState, smooth: dict[str, float]) -> None:
            done = int(state.step)
            if done % max(1, demo.steps // 100) == 0:
                last["sparsity"] = sparsity_of(state.opt_state)
            show(done, {**smooth, **last})

        state, history = train(
            step,
            state,
            order,
            num_steps=demo.steps,
            checkpoints=checkpoints,
            measure=measure,
            measure_every=max(5, demo.steps // 12),
            report=report,
        )
        show(demo.steps, {name: history[-1][name] for name in ("loss", "accuracy", "sparsity")})
    return state, history


def with_steps(
    demo: Demo, gradients: Callable, network: Network, batch: Any, console: Console
) -> Demo:
    """The demo with its number of steps, kept for a run that goes on; says what it will take.

    The time of a gradient decides: nearly all of a step is that.
    """
    call = lambda: jax.block_until_ready(gradients(network.params, network.statistics, *batch))
    call()  # compiles what the trainings need
    started = time.perf_counter()
    for _ in range(5):
        call()
    step = 1.25 * (time.perf_counter() - started) / 5
    demo = replace(demo, steps=demo.steps or affordable_steps(step))
    keep_recipe(demo)
    minutes = math.ceil((2 * demo.steps * step + TIMING_SECONDS) / 60)
    console.print(
        f"On this machine {demo.steps:,} steps each: "
        f"about {minutes} minutes ({1e3 * step:.0f} ms a step)."
    )
    return demo
