"""Budgets in milliseconds against the times of the networks that are planned for them.

    python -m benchmarks.budgets --json FILE [--nets resnet18] [--budgets 10]

For ten budgets between what a 95 % sparse and a dense network take, the plan is chosen by a latency
table, weights are pruned by magnitude, and the compiled network is timed with the others in turns.
Printed is what it takes of its budget, in milliseconds and as a part of the dense network's, of
which the budget is a part, too: that a machine is faster or slower for minutes changes the first
alone. Random weights, float32, one core, one image of 224 x 224; of ResNets all convolutions but
the first are pruned, of the others those of 1x1.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import numpy as np

import sparsejax as sj
from benchmarks import publish
from benchmarks.peers.nets import DENSE, NETS, input_of, variables_of
from experiments.runs.cores import cpu_name
from experiments.runs.timing import warm_ms
from sparsejax.budgets.latency import pruned

TURNS = 10
NAMES = ("mobilenet_v1", "mobilenet_v2", "resnet18")


def of_net(name: str, num_budgets: int) -> dict[str, Any]:
    """The budgets of a network in milliseconds, the table's times and the measured ones."""
    net = NETS[name]()
    x, params, rules = input_of(net, 1), variables_of(net, DENSE, 0.0), {net.pruned: PATTERNS}
    start = time.perf_counter()
    table = sj.budgets.LatencyTable.measure(net.apply, params, rules, x)
    seconds = time.perf_counter() - start
    ends = [sj.plan(params, {net.pruned: (PATTERNS[0], end)}, sparsity=0.0) for end in (0.95, 0.0)]
    limits = np.linspace(*map(table.milliseconds_of, ends), num_budgets + 1)[1:].tolist()
    plans = [
        sj.plan(params, rules, budget=sj.budgets.milliseconds(limit, table)) for limit in limits
    ]
    runs = {
        str(number): partial(jax.jit(sj.compile(net.apply, pruned(params, plan), x, plan=plan)), x)
        for number, plan in enumerate(plans)
    }
    measured = list(warm_ms(runs, TURNS).values())
    ratios = [own / limit for own, limit in zip(measured, limits, strict=True)]
    of_dense = [ratio / ratios[-1] for ratio in ratios[:-1]]
    farthest = lambda ratios: max(ratios, key=lambda ratio: abs(ratio - 1))
    return {
        "table_seconds": seconds,
        "median_of_budget": statistics.median(ratios),
        "worst_of_budget": farthest(ratios),
        "median_of_budget_of_dense": statistics.median(of_dense),
        "worst_of_budget_of_dense": farthest(of_dense),
        "budgets": [
            {
                "limit_ms": limit,
                "table_ms": table.milliseconds_of(plan),
                "ms": own,
                "sparsity": plan.sparsity,
            }
            for limit, plan, own in zip(limits, plans, measured, strict=True)
        ],
    }


PATTERNS = [sj.Unstructured(), sj.Block(4, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NAMES)
    parser.add_argument("--budgets", type=int, default=10, help="how many for each net")
    options = parser.parse_args()
    results: Mapping[str, Any] = {name: of_net(name, options.budgets) for name in options.nets}
    publish({"cpu": cpu_name(), **results}, options.json)


if __name__ == "__main__":
    main()
