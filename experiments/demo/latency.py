"""Latency of MobileNet-v1 on one core: dense as written, dense with shifted depthwise, and ours.

    python -m experiments.demo.latency --variables FILE.npz --json FILE [--smoke]

The demo runs it as a process of its own, pinned to one core before jax makes its threads.
"""

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import numpy as np
from flax import nnx

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1, MobileNetV1Linen, shifted_depthwise
from experiments.models.variables import prune, random_statistics
from experiments.runs.cores import cpu_name
from experiments.runs.timing import relative_error, rows_of
from experiments.settings.train import take_apart

PATTERNS = ((sj.Unstructured(), "unstructured"), (sj.Block(4, 1), "4x1 blocks"))
SPARSITIES = (0.9,)  # more would cost the demo ten seconds each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variables", type=Path, required=True, help="of save_variables")
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--smoke", action="store_true", help="few repeats, no 1.0/224")
    options = parser.parse_args()
    repeats = 2 if options.smoke else 11  # turns of three calls
    tables = {"trained": trained_rows(options.variables, repeats, smoke=options.smoke)}
    if not options.smoke:
        tables["224"] = forward(224, repeats, SPARSITIES)
    machine = {"cpu": cpu_name(), "threads": 1, "jax": jax.__version__, "repeats": repeats}
    options.json.write_text(json.dumps({"machine": machine, **tables}, indent=1))


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


def build(
    num_classes: int, width: float, *, small_images: bool, seed: int, **options: Any
) -> MobileNetV1:
    """The demo's network: MobileNet-v1 for grey images."""
    return MobileNetV1(
        in_channels=1,
        num_classes=num_classes,
        width=width,
        small_images=small_images,
        momentum=0.97,  # statistics over the last thousands of images, not the last hundreds
        rngs=nnx.Rngs(seed),
        **options,
    )


def save_variables(path: Path, shape: dict[str, Any], **variables: Any) -> None:
    """Write the leaves of some trees and the options of `build` that made their network."""
    arrays = {
        f"{name}/{i}": np.asarray(leaf)
        for name, tree in variables.items()
        for i, leaf in enumerate(jax.tree.leaves(tree))
    }
    np.savez(path, shape=json.dumps(shape), **arrays)


def trained_rows(path: Path, repeats: int, *, smoke: bool) -> list[dict[str, Any]]:
    """The demo's networks: dense weights both plain ways, then ours as trained and as pruned."""
    file = np.load(path)
    shape = json.loads(str(file["shape"]))
    plain, shifted = (
        nnx.eval_shape(lambda: take_apart(build(**shape, **options)))  # noqa: B023
        for options in ({}, {"depthwise": shifted_depthwise})
    )
    like = (plain.params, plain.statistics)
    structure = jax.tree.structure(like)
    dense, sparse = (
        jax.tree.unflatten(structure, [file[f"{name}/{i}"] for i in range(structure.num_leaves)])
        for name in ("dense", "sparse")
    )
    x = jax.random.normal(jax.random.key(1), (1, 28, 28, 1))
    ways: dict[str, tuple] = {
        "flax as written": (jax.jit(plain.apply), dense),
        "JAX, shifted depthwise": (jax.jit(shifted.apply), dense),
        "compile, dense": ours(plain.apply, dense, x),
        "compile, as trained": ours(plain.apply, sparse, x),
    }
    for pattern, name in PATTERNS[: 0 if smoke else None]:
        for sparsity in SPARSITIES:
            pruned = prune(dense, pattern, sparsity)
            ways[f"compile, {sparsity:.0%} {name}"] = ours(plain.apply, pruned, x)
    reference = jax.jit(shifted.apply)
    errors = {
        name: relative_error(fn(variables, x), reference(variables, x))
        for name, (fn, variables) in ways.items()
    }
    calls = {name: functools.partial(fn, variables, x) for name, (fn, variables) in ways.items()}
    return rows_of(calls, errors, repeats, baseline="JAX, shifted depthwise")


def ours(apply_fn: Any, variables: Any, x: jax.Array) -> tuple:
    """The compiled function as one of variables and x, and the variables it was compiled for."""
    return ignore_params(jax.jit(sj.compile(apply_fn, variables, x))), variables


def ignore_params(fn: Callable) -> Callable:
    return lambda params, x: fn(x)


if __name__ == "__main__":
    main()
