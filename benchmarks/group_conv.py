"""Group convolutions of MobileNet-v1: one size of a group, one number of groups, and jax.jit.

    taskset -c 0 python -m benchmarks.group_conv --json group_conv.json

The 13 depthwise 3x3 convolutions of MobileNet-v1 at 224 pixels become group convolutions, each a
network of one layer with a ReLU; what is printed is the time of all 13 for one image, the
multiply-adds, and what is left of a multiply-add's time when both take equally many. One size and
one number of groups stand beside each other where their multiply-adds are about equal. `energy` is
what the processor took for an image by its own counters, those of all that runs on it, or "not
measured" where they cannot be read. Outputs are compared first. Random weights, float32, one core.
"""

import argparse
import functools
import os
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from experiments.models.mobilenet_v1 import BLOCKS, STEM_CHANNELS
from experiments.runs.cores import bind, usable_cores
from experiments.runs.timing import relative_error, rows_of

PAIRS = ((2, 128), (4, 64), (8, 32), (16, 16), (32, 8))  # channels of a group, groups


def layers() -> list[tuple[int, int, int]]:
    """Channels, input side and stride of each layer."""
    channels = [STEM_CHANNELS, *(block.channels for block in BLOCKS[:-1])]
    strides = [block.stride for block in BLOCKS]
    sides = [112 // int(np.prod(strides[:i], dtype=int)) for i in range(len(strides))]
    return list(zip(channels, sides, strides, strict=True))


def network(channels: int, size: int, stride: int) -> Any:
    """A group convolution and a ReLU, and its weights."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 3, size, channels)) / np.sqrt(9 * size)

    def layer(weights: jax.Array, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x,
            weights,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels // size,
        )
        return jax.nn.relu(y)

    return layer, weights.astype(np.float32)


def timed(size_of: Any, repeats: int, tune: bool) -> dict[str, Any]:
    """Milliseconds of all layers by both, where a layer of c channels has groups of size_of(c)."""
    total, multiply_adds = {"jit": 0.0, "compile": 0.0}, 0
    images: dict[str, list[Callable[[], Any]]] = {name: [] for name in total}
    for channels, side, stride in layers():
        size = min(size_of(channels), channels)
        layer, weights = network(channels, size, stride)
        x = jnp.asarray(np.random.default_rng(1).standard_normal((1, side, side, channels)))
        x = x.astype(jnp.float32)
        ways = {"jit": jax.jit(layer), "compile": sj.compile(layer, weights, x, tune=tune)}
        calls = {
            "jit": functools.partial(ways["jit"], jnp.asarray(weights), x),
            "compile": functools.partial(ways["compile"], x),
        }
        errors = {name: relative_error(call(), calls["jit"]()) for name, call in calls.items()}
        for row in rows_of(calls, errors, repeats, baseline="jit"):
            total[row["name"]] += row["wall_ms"]
            images[row["name"]].append(calls[row["name"]])
        multiply_adds += 9 * size * channels * (side // stride) ** 2
    times = {f"{name} ms": round(ms, 3) for name, ms in total.items()}
    giga = round(multiply_adds / total["compile"] / 1e6, 1)
    energies = {f"{name} energy": str(energy(own, 20 * repeats)) for name, own in images.items()}
    return {"MMAdds": round(multiply_adds / 1e6, 1), **times, "GMAdds/s": giga, **energies}


def energy(layers: list[Callable[[], Any]], repeats: int) -> sj.search.Energy:
    """Of all layers once."""
    run = lambda: [jax.block_until_ready(call()) for _ in range(repeats) for call in layers]
    joules = sj.search.measured_energy(run).joules
    return sj.search.Energy(None if joules is None else joules / repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[size for size, _ in PAIRS])
    parser.add_argument("--tune", action="store_true", help="measure the layouts")
    options = parser.parse_args()
    bind(usable_cores()[:1])
    results = {}
    for size, groups in PAIRS:
        if size not in options.sizes:
            continue
        one_size = timed(lambda channels, size=size: size, options.repeats, options.tune)
        one_number = timed(
            lambda channels, groups=groups: max(channels // groups, 1),
            options.repeats,
            options.tune,
        )
        equal = one_number["MMAdds"] / one_size["MMAdds"]
        ratio = one_number["compile ms"] / one_size["compile ms"] / equal
        results[f"groups of {size}"] = one_size
        results[f"{groups} groups"] = one_number | {"time at equal MAdds": round(ratio, 2)}
    publish(results, options.json)


if __name__ == "__main__":
    main()
