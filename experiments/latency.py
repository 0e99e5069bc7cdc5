"""Latency of MobileNet-v1 on one core: dense as written, dense with shifted depthwise, and ours.

    python -m experiments.latency --variables FILE.npz --json FILE [--smoke]

The demo runs it as a process of its own, pinned to one core before jax makes its threads. Timing
and the checks of outputs are those of `benchmarks.mobilenet`.
"""

import argparse
import functools
import json
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.cores import use_one_core

    use_one_core()

import jax
import numpy as np
from flax import nnx

import sparsejax as sj
from benchmarks import mobilenet as bench
from experiments.cores import cpu_name
from experiments.models.mobilenet_v1 import MobileNetV1, shifted_depthwise
from experiments.train import take_apart

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
        tables["224"] = bench.forward(224, repeats, SPARSITIES)
    machine = {"cpu": cpu_name(), "threads": 1, "jax": jax.__version__, "repeats": repeats}
    options.json.write_text(json.dumps({"machine": machine, **tables}, indent=1))


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
            pruned = bench.prune(dense, pattern, sparsity)
            ways[f"compile, {sparsity:.0%} {name}"] = ours(plain.apply, pruned, x)
    reference = jax.jit(shifted.apply)
    errors = {
        name: bench.relative_error(fn(variables, x), reference(variables, x))
        for name, (fn, variables) in ways.items()
    }
    calls = {name: functools.partial(fn, variables, x) for name, (fn, variables) in ways.items()}
    return bench.rows_of(calls, errors, repeats, baseline="JAX, shifted depthwise")


def ours(apply_fn: Any, variables: Any, x: jax.Array) -> tuple:
    """The compiled function as one of variables and x, and the variables it was compiled for."""
    return bench.ignore_params(jax.jit(sj.compile(apply_fn, variables, x))), variables


if __name__ == "__main__":
    main()
