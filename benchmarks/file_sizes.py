"""Bytes of MobileNet-v1 1.0/224 in a file, at 80, 90 and 95 % zeros, as they are and compressed.

    python -m benchmarks.file_sizes --json FILE

Random weights; all 1x1 convolutions and the head are pruned to the sparsity. Dense is a safetensors
file of the same folded weights, in float32 or float16, with their zeros. zstd is the command, level
19; without it those columns stay empty.
"""

import argparse
import functools
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as to_safetensors

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.models.variables import random_statistics
from sparsejax.compiler.files.write import to_bytes
from sparsejax.ops import _ffi

PRUNED = r"(pointwise|head).*kernel"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()
    rows = list(measure())
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


def measure() -> Iterator[dict[str, Any]]:
    """A row for each sparsity and dtype: bytes, and as fractions of dense float32."""
    model, x = MobileNetV1Linen(num_classes=1000), jnp.zeros((1, 224, 224, 3))
    dense = random_statistics(jax.jit(model.init)(jax.random.key(0), x))
    apply = functools.partial(model.apply, train=False)
    plan = sj.plan(dense["params"], {PRUNED: sj.Unstructured()}, sparsity=0.5)
    pruned = {leaf.path for leaf in plan.leaves}
    for sparsity in (0.8, 0.9, 0.95):

        def prune(path: str, leaf: jax.Array, sparsity: float = sparsity) -> jax.Array:
            if path.removeprefix("params/") not in pruned:
                return leaf
            return leaf * sj.Unstructured().mask(jnp.abs(leaf), sparsity)

        fast = sj.compile(apply, sj.tree.map_with_paths(prune, dense), x, tune=False)
        for dtype in (np.float32, np.float16):
            yield row_of(to_bytes(fast, dtype), sparsity, dtype)


def row_of(file: bytes, sparsity: float, dtype: type[np.floating]) -> dict[str, Any]:
    """Bytes of a file and of its weights without sparsity."""
    (((_, floats),), _) = _ffi.read_model(file)
    dense = to_safetensors({"weights": floats.astype(dtype)})
    sizes = {
        "dense": len(dense),
        "dense zstd": zstd(dense),
        "ours": len(file),
        "ours zstd": zstd(file),
    }
    fractions = {
        f"{name} / dense float32": round(size / floats.nbytes, 3)
        for name, size in sizes.items()
        if size
    }
    return {"sparsity": sparsity, "values": np.dtype(dtype).name, **sizes, **fractions}


def zstd(data: bytes) -> int | None:
    """The compressed size, None where there is no zstd."""
    if shutil.which("zstd") is None:
        return None
    done = subprocess.run(["zstd", "-19", "-c", "-q"], input=data, capture_output=True, check=True)
    return len(done.stdout)


if __name__ == "__main__":
    main()
