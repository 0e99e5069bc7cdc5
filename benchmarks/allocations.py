"""Milliseconds of the experiments' networks, compiled, by allocation and sparsity.

    python -m benchmarks.allocations --json benchmarks/results/allocations.json

The classifier of most tables on one image: each allocation (uniform, ERK, one threshold for the
network) at each sparsity of the tables, random weights pruned by magnitude, float32, one core.
Calls take turns, a figure is the median of 39. docs/explorer.md draws accuracies against these.
"""

import argparse
import json
from functools import partial

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import numpy as np

import sparsejax as sj
from experiments.models import networks
from experiments.runs.cores import cpu_name
from experiments.runs.timing import warm_ms
from experiments.settings.classify import Classify
from experiments.settings.train import built
from sparsejax.budgets.latency import pruned

SHAPES = {networks.mobilenet_v1_quarter: (28, 28, 1)}
ALLOCATIONS = {
    "uniform": sj.allocate.uniform,
    "ERK": sj.allocate.erk,
    "global": sj.allocate.global_magnitude,
}
PERCENTS = (50, 80, 90, 95, 98)
TURNS = 13


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    found: dict[str, float] = {}
    for net, shape in SHAPES.items():
        found |= of_net(net, shape)
    print(json.dumps(found, indent=1))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"cpu": cpu_name(), "jax": jax.__version__, **found}, file, indent=1)


def of_net(net: networks.MakeNet, shape: tuple[int, int, int]) -> dict[str, float]:
    """The times by "network allocation percent"; the dense one has no allocation."""
    network = built(lambda: net(shape, 10, 0))
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    apply = lambda params, x: network.apply((params, network.statistics), x)
    rules = {Classify().prunable: sj.Unstructured()}
    plans = {f"{net.__name__}  0": sj.plan(network.params, rules, sparsity=0.0)}
    for name, allocate in ALLOCATIONS.items():
        for percent in PERCENTS:
            plan = sj.plan(network.params, rules, sparsity=percent / 100, allocate=allocate)
            plans[f"{net.__name__} {name} {percent}"] = plan
    runs = {
        name: partial(jax.jit(sj.compile(apply, pruned(network.params, plan), x, plan=plan)), x)
        for name, plan in plans.items()
    }
    return {name: round(ms, 4) for name, ms in warm_ms(runs, TURNS).items()}


if __name__ == "__main__":
    main()
