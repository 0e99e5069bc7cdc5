"""Times every layout of MobileNet-v1's products, and what compile without tuning takes of them.

    python -m benchmarks.layouts --json FILE

Random weights, one thread, float32, one image of 224 x 224, zeros in the 1x1 convolutions. Sparsity
counts those weights alone. A product is timed inside the whole network, fastest of 12 runs.
"""

import argparse
import itertools

import jax
import numpy as np

from benchmarks import publish
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.runs.cores import bind, usable_cores
from sparsejax.compiler.engine.call import load
from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.layouts import calibrate
from sparsejax.compiler.layouts.select import (
    Traits,
    candidates,
    estimate,
    is_product,
    traits_of,
)
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.split import split
from sparsejax.patterns.layout import LAYOUTS, Layout
from sparsejax.text import table

RUNS = 12
CASES = ((0.0, 1), (0.5, 1), (0.7, 1), (0.8, 1), (0.9, 1), (0.95, 1), (0.7, 4), (0.8, 4), (0.9, 4))

Row = tuple[Traits, Layout, float]  # microseconds


def network(sparsity: float, rows: int) -> Region:
    """MobileNet-v1 1.0/224 with zeros in `rows` x 1 blocks of its 1x1 convolutions."""
    model, x = MobileNetV1Linen(), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    rng = np.random.default_rng(0)

    def weights(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
        if leaf.ndim != 4 or leaf.shape[:2] != (1, 1):
            return values
        kept = rng.random((leaf.shape[2], leaf.shape[3] // rows)) >= sparsity
        return values * np.repeat(kept, rows, 1)

    params = jax.tree.map(weights, shapes)
    graph, _ = trace(lambda params, x: model.apply(params, x, train=False), params, (x,))
    (region,) = split(rewrite(graph))
    assert isinstance(region, Region)
    return region


def measure() -> list[Row]:
    """Every product of every case in every layout."""
    rows: list[Row] = []
    for sparsity, block in CASES:
        region = network(sparsity, block)
        products = {n: traits_of(n, region) for n in region.nodes if is_product(n)}
        for layout in LAYOUTS:
            rows += _timed(region, products, layout)
    return rows


def _timed(region: Region, products: dict[Node, Traits], layout: Layout) -> list[Row]:
    program = lower(region, dict.fromkeys(products, layout))
    _, loaded = load(program)
    seconds = loaded.profile(RUNS)
    return [(t, layout, seconds[program.steps[n]] * 1e6) for n, t in products.items()]


def errors(rows: list[Row]) -> dict[str, dict[str, float]]:
    """How the model errs on each layout, relatively."""
    costs, found = calibrate.costs(), {}
    for layout in LAYOUTS:
        wrong = [abs(estimate(costs, t, y) / us - 1) for t, y, us in rows if y == layout]
        name = f"{layout.storage.name.lower()} {layout.block}"
        found[name] = {"mean error": float(np.mean(wrong)), "worst error": float(np.max(wrong))}
    return found


def regrets(rows: list[Row]) -> list[tuple[str, float]]:
    """Of each layer the time of the layout that the model takes over that of the best."""
    costs, found = calibrate.costs(), []
    rows = sorted(rows, key=lambda row: row[0])
    for traits, group in itertools.groupby(rows, key=lambda row: row[0]):
        times = {layout: us for _, layout, us in group}
        taken = next(layout for layout in candidates(costs, traits) if layout in times)
        name = f"{traits.rows}x{traits.cols}x{traits.pixels}, {1 - traits.stored[0]:.0%} zeros"
        found.append((name, times[taken] / min(times.values())))
    return sorted(found, key=lambda pair: -pair[1])


def main() -> None:
    """Prints and writes how far the model is from the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    bind(usable_cores()[-1:])
    rows = measure()
    wrong, lost = errors(rows), regrets(rows)
    cells = [(name, *(f"{v:.2f}" for v in each.values())) for name, each in wrong.items()]
    print(table("Errors of the model", ("layout", *next(iter(wrong.values()))), cells))
    worst = [(name, f"{ratio:.2f}") for name, ratio in lost[:12]]
    print(table("Without tuning, times the best layout", ("layer", "ratio"), worst))
    mean = float(np.mean([ratio for _, ratio in lost]))
    print(f"{len(lost)} layers, mean {mean:.3f}")
    if arguments.json:
        publish({"layouts": wrong, "regret": {"mean": mean, "worst": lost[0][1]}}, arguments.json)


if __name__ == "__main__":
    main()
