"""MobileNet-v1 on one core: forward 1.0/224, batch 1, and a training step of 0.5/32, batch 64.

    python -m benchmarks.mobilenet --json FILE

Both dense baselines stand beside ours: flax as written, and the same model with its depthwise
convolutions as shifted multiply-adds. All are jitted, run in turns on one core, and give equal
outputs before they are timed. A turn is one call to warm the caches and three that count. Times are
medians in milliseconds, on the wall and of the process's CPU, which others' load disturbs less;
speed-ups are medians of the ratios within a turn.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.cores import use_one_core

    use_one_core()

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike, Float

import sparsejax as sj
from experiments.cores import cpu_name
from experiments.models.mobilenet_v1 import MobileNetV1Linen, shifted_depthwise
from sparsejax.text import table

TOLERANCE = 3e-5  # relative, between two float32 orders of summation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="small images, few repeats")
    options = parser.parse_args()
    size, repeats = (32, 3) if options.smoke else (224, options.repeats)
    results = {"forward": forward(size, repeats), "training step": training_step(repeats)}
    for name, rows in results.items():
        show(name, rows)
    if options.json:
        machine = {"cpu": cpu_name(), "cores": 1, "jax": jax.__version__, "repeats": repeats}
        with open(options.json, "w") as file:
            json.dump({"machine": machine, **results}, file, indent=1)


def forward(
    size: int, repeats: int, sparsities: Sequence[float] = (0.8, 0.9)
) -> list[dict[str, Any]]:
    """Dense baselines and ours, each on the weights that it is named after."""
    x = jax.random.normal(jax.random.key(1), (1, size, size, 3))
    model = MobileNetV1Linen()
    dense = random_statistics(jax.jit(model.init)(jax.random.key(0), x))
    apply = functools.partial(model.apply, train=False)
    shifted = functools.partial(MobileNetV1Linen(depthwise=shifted_depthwise).apply, train=False)
    ways = {
        "flax as written": (jax.jit(apply), dense),
        "JAX, shifted depthwise": (jax.jit(shifted), dense),
        "accelerate": (jax.jit(sj.accelerate(apply)), dense),
    }
    for pattern, name in ((sj.Unstructured(), "unstructured"), (sj.Block(4, 1), "4x1")):
        for sparsity in sparsities:
            pruned = prune(dense, pattern, sparsity)
            fast = jax.jit(sj.compile(apply, pruned, x))
            ways[f"compile, {sparsity:.0%} {name}"] = (ignore_params(fast), pruned)
    reference = jax.jit(shifted)
    errors = {
        name: relative_error(fn(params, x), reference(params, x))
        for name, (fn, params) in ways.items()
    }
    calls = {name: functools.partial(fn, params, x) for name, (fn, params) in ways.items()}
    return rows_of(calls, errors, repeats, baseline="JAX, shifted depthwise")


def training_step(repeats: int) -> list[dict[str, Any]]:
    """An SGD step with momentum, with and without accelerate."""
    images = jax.random.normal(jax.random.key(1), (64, 32, 32, 3))
    labels = jnp.arange(64) % 10
    model = MobileNetV1Linen(num_classes=10, width=0.5)
    shifted = MobileNetV1Linen(num_classes=10, width=0.5, depthwise=shifted_depthwise)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    optimizer = optax.sgd(0.01, momentum=0.9)
    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))

    def loss_of(model: MobileNetV1Linen) -> Callable:
        def loss(params, statistics):
            variables = {"params": params, "batch_stats": statistics}
            logits, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), new["batch_stats"]

        return loss

    def step_of(loss: Callable) -> Callable:
        def step(params, statistics, opt_state):
            value_and_grad = jax.value_and_grad(loss, has_aux=True)
            (value, statistics), grads = value_and_grad(params, statistics)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), statistics, opt_state, value, grads

        return jax.jit(step)

    steps = {
        "flax as written": step_of(loss_of(model)),
        "JAX, shifted depthwise": step_of(loss_of(shifted)),
        "accelerate": step_of(sj.accelerate(loss_of(model))),
    }
    exact = steps["JAX, shifted depthwise"](*state)
    errors = {name: tree_error(step(*state)[4], exact[4]) for name, step in steps.items()}
    calls = {name: functools.partial(step, *state) for name, step in steps.items()}
    return rows_of(calls, errors, repeats, baseline="flax as written", tolerance=1e-2)


def rows_of(
    calls: dict[str, Callable],
    errors: dict[str, float],
    repeats: int,
    *,
    baseline: str,
    tolerance: float = TOLERANCE,
) -> list[dict[str, Any]]:
    """Time the calls in turns; refuse to time one that is wrong."""
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        raise SystemExit(f"Outputs differ from the dense ones by {wrong}; nothing was timed.")
    times = [[timed(call) for call in calls.values()] for _ in range(repeats)]
    return [
        {"name": name, **row, "baseline": baseline, "relative_error": errors[name]}
        for name, row in zip(calls, summaries(times, list(calls).index(baseline)), strict=True)
    ]


def timed(call: Callable) -> list[tuple[float, float]]:
    """Seconds on the wall and of the CPU of three calls, after one to warm the caches."""
    jax.block_until_ready(call())
    times = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(call())
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def summaries(
    times: Float[ArrayLike, "turns ways calls clocks"], baseline: int
) -> list[dict[str, float]]:
    """Of each way the median times, and the median over turns of the ratio within a turn.

    What slows the machine for a while slows the ways of a turn alike and leaves their ratio.
    """
    turns = np.median(np.asarray(times), axis=2)
    speedups = np.median(turns[:, baseline, None] / turns, axis=0)
    return [
        dict(zip(("wall_ms", "cpu_ms", "wall_speedup", "cpu_speedup"), row, strict=True))
        for row in np.concatenate([1e3 * np.median(turns, axis=0), speedups], axis=1).tolist()
    ]


def random_statistics(variables: Any) -> Any:
    """The variables with batch norms that are not the identity."""
    rng = np.random.default_rng(0)

    def draw(path: str, leaf: jax.Array) -> jax.Array:
        if "norm" not in path:
            return leaf
        low, high = (0.5, 1.5) if path.endswith(("scale", "var")) else (-0.1, 0.1)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), leaf.dtype)

    return sj.tree.map_with_paths(draw, variables)


def prune(variables: Any, pattern: sj.Pattern, sparsity: float) -> Any:
    """The variables with the smallest weights of the 1x1 convolutions set to zero."""

    def zero(path: str, leaf: jax.Array) -> jax.Array:
        if not path.endswith("pointwise/kernel"):
            return leaf
        return jnp.where(pattern.mask(jnp.abs(leaf), sparsity), leaf, 0)

    return sj.tree.map_with_paths(zero, variables)


def ignore_params(fn: Callable) -> Callable:
    return lambda params, x: fn(x)


def relative_error(y: jax.Array, expected: jax.Array) -> float:
    return float(jnp.abs(y - expected).max() / jnp.abs(expected).max())


def tree_error(tree: Any, expected: Any) -> float:
    """The distance of two trees relative to the length of the second."""
    difference = jax.tree.map(jnp.subtract, tree, expected)
    return float(optax.tree.norm(difference) / optax.tree.norm(expected))


def show(title: str, rows: list[dict[str, Any]]) -> None:
    cells = (
        (
            row["name"],
            f"{row['wall_ms']:.2f}",
            f"{row['cpu_ms']:.2f}",
            f"{row['wall_speedup']:.2f} ({row['cpu_speedup']:.2f})",
            f"{row['relative_error']:.1e}",
        )
        for row in rows
    )
    columns = ("", "wall ms", "CPU ms", "speedup (CPU)", "error")
    print(table(f"{title}, one core; speedup over {rows[0]['baseline']}", columns, cells))


if __name__ == "__main__":
    main()
