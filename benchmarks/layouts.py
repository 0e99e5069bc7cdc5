"""Times every layout of MobileNet-v1's products and fits the model that compile has without tuning.

    python -m benchmarks.layouts --json FILE

Random weights, one thread, float32, one image of 224 x 224, zeros in the 1x1 convolutions. Sparsity
counts those weights alone. A product is timed inside the whole network, fastest of 12 runs.
"""

import argparse
import math

import jax
import numpy as np
from scipy.optimize import nnls

from benchmarks import publish
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.runs.cores import bind, usable_cores
from sparsejax.compiler.engine.call import load
from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.layouts.select import COSTS, Traits, estimate, is_product, stored, traits_of
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.split import split
from sparsejax.patterns.layout import Layout
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
        for key in COSTS:
            rows += _timed(region, products, Layout(*key))
    return rows


def _timed(region: Region, products: dict[Node, Traits], layout: Layout) -> list[Row]:
    program = lower(region, dict.fromkeys(products, layout))
    _, loaded = load(program)
    seconds = loaded.profile(RUNS)
    return [(t, layout, seconds[program.steps[n]] * 1e6) for n, t in products.items()]


def fit(rows: list[Row], key: tuple[int, int]) -> dict[str, float]:
    """Costs of a layout that err least, relatively, and how the model in use errs."""
    mine = [(t, layout, us) for t, layout, us in rows if layout[:2] == key]
    many = [(t, layout, us) for t, layout, us in mine if t.pixels > 1]
    matrix, errors = [], []
    for traits, layout, us in many:
        weights = stored(traits, layout) * traits.rows * traits.cols
        pixels = math.ceil(traits.pixels / 8) * 8
        moved = (traits.rows + traits.cols * (1 + traits.gathers)) * pixels
        matrix.append([weights / us / 1e3, weights * pixels / us / 1e3, moved / us / 1e3])
        errors.append(abs(estimate(traits, layout) / us - 1))
    (weight, pixel, activation), _ = nnls(np.array(matrix), np.ones(len(matrix)))
    alone = [us * 1e3 / (t.rows * t.cols * stored(t, y)) for t, y, us in mine if t.pixels == 1]
    return {
        "weight": weight,
        "pixel": pixel,
        "activation": activation,
        "alone": float(np.median(alone)),
        "mean_error": float(np.mean(errors)),
        "worst_error": float(np.max(errors)),
    }


def main() -> None:
    """Prints and writes what was fitted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    bind(usable_cores()[-1:])
    rows = measure()
    fitted = {f"{('CSR', 'block', 'masks')[k[0]]} {k[1]}": fit(rows, k) for k in COSTS}
    columns = ("layout", *next(iter(fitted.values())))
    cells = [(name, *(f"{v:.3f}" for v in costs.values())) for name, costs in fitted.items()]
    print(table("Costs in ns, and errors of the model in use", columns, cells))
    if arguments.json:
        publish({"layouts": fitted}, arguments.json)


if __name__ == "__main__":
    main()
