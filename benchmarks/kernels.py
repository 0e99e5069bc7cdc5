"""Kernels on the layers of MobileNet-v1 1.0/224, batch 1, with the dense ways of XLA beside them.

    taskset -c 1 python -m benchmarks.kernels --json kernels.json

Times are medians in microseconds of calls that alternate between the ways, with the best call in
brackets: on a machine that others use too the two are far apart. GFLOP/s are of the medians; useful
ones count the nonzeros' multiply-adds, effective ones those of the dense layer.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from sparsejax.ops import _ffi

# inputs, outputs, height and width, how often
POINTWISE = [
    (32, 64, 112, 1),
    (64, 128, 56, 1),
    (128, 128, 56, 1),
    (128, 256, 28, 1),
    (256, 256, 28, 1),
    (256, 512, 14, 1),
    (512, 512, 14, 5),
    (512, 1024, 7, 1),
    (1024, 1024, 7, 1),
]
# channels, height and width, stride, how often
DEPTHWISE = [
    (32, 112, 1, 1),
    (64, 112, 2, 1),
    (128, 56, 1, 1),
    (128, 56, 2, 1),
    (256, 28, 1, 1),
    (256, 28, 2, 1),
    (512, 14, 1, 5),
    (512, 14, 2, 1),
    (1024, 7, 1, 1),
]
SPARSITIES = (0.8, 0.9, 0.95)
Ways = dict[str, Callable[..., Any]]


def pointwise(
    sparsity: float, size: tuple[int, int, int, int], channels_last: bool
) -> dict[str, Any]:
    """Times of one 1x1 layer: dense, unstructured and in 4x1 blocks."""
    cols, rows, side, repeats = size
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((cols, rows), dtype=np.float32)
    shape = (side * side, cols) if channels_last else (cols, side * side)
    x = jnp.asarray(rng.standard_normal(shape, dtype=np.float32))
    bias = jnp.asarray(rng.standard_normal(rows, dtype=np.float32))
    patterns = {"csr": sj.Unstructured(), "block 4x1": sj.Block(4, 1)}
    options: dict[str, Any] = {"activation": jax.nn.relu6, "channels_last": channels_last}
    ways: Ways = {"dense": jax.jit(partial(_dense, jnp.asarray(dense), bias, channels_last))}
    for name, pattern in patterns.items():
        mask = pattern.mask(jnp.abs(dense), sparsity)
        packed = jax.tree.map(jnp.asarray, pattern.pack(dense, np.asarray(mask)))
        ways[name] = partial(jax.jit(partial(sj.spmm, bias=bias, **options)), packed)
    flops = 2 * rows * cols * side * side
    return {
        "layer": f"{rows}x{cols}x{side * side}",
        "layout": "NHWC" if channels_last else "channel-major",
        "sparsity": sparsity,
        "repeats": repeats,
        **_rates(time_ways(ways, x), flops, sparsity),
    }


def _dense(matrix: jax.Array, bias: jax.Array, channels_last: bool, x: jax.Array) -> jax.Array:
    return jax.nn.relu6(x @ matrix + bias if channels_last else matrix.T @ x + bias[:, None])


def depthwise(size: tuple[int, int, int, int], channels_last: bool) -> dict[str, Any]:
    """Times of one depthwise layer: XLA's grouped convolution, shifted multiply-adds, ours."""
    channels, side, stride, repeats = size
    rng = np.random.default_rng(0)
    shape = (1, side, side, channels) if channels_last else (1, channels, side, side)
    x = jnp.asarray(rng.standard_normal(shape, dtype=np.float32))
    kernel = jnp.asarray(rng.standard_normal((3, 3, 1, channels), dtype=np.float32))
    bias = jnp.asarray(rng.standard_normal(channels, dtype=np.float32))
    options: dict[str, Any] = {
        "strides": (stride, stride),
        "activation": jax.nn.relu6,
        "channels_last": channels_last,
    }
    ways: Ways = {
        "xla": jax.jit(partial(sj.ops.depthwise_conv2d_reference, **options)),
        "shifted": jax.jit(partial(shifted, stride=stride, channels_last=channels_last)),
        "ours": jax.jit(partial(sj.depthwise_conv2d, **options)),
    }
    return {
        "layer": f"{channels}x{side}x{side} stride {stride}",
        "layout": "NHWC" if channels_last else "channel-major",
        "repeats": repeats,
        **_rates(time_ways(ways, x, kernel, bias), 18 * channels * (side // stride) ** 2, 0.0),
    }


def depthwise_training(size: tuple[int, int, int, int], images: int = 8) -> dict[str, Any]:
    """Times of one NHWC depthwise layer's output and gradients: shifted multiply-adds, ours."""
    channels, side, stride, repeats = size
    key = jax.random.key(0)
    x = jax.random.normal(key, (images, side, side, channels))
    kernel, bias = jax.random.normal(key, (3, 3, 1, channels)), jnp.zeros(channels)
    grad_y = jax.random.normal(key, (images, side // stride, side // stride, channels))

    def gradients(op: Callable[..., Any], *operands: jax.Array) -> Any:
        y, vjp = jax.vjp(op, *operands[:3])
        return y, vjp(operands[3])

    ours = partial(sj.depthwise_conv2d, strides=(stride, stride), activation=jax.nn.relu6)
    dense = partial(shifted, stride=stride, channels_last=True)
    ops = {"shifted": dense, "ours": ours}
    ways: Ways = {name: jax.jit(partial(gradients, op)) for name, op in ops.items()}
    times = time_ways(ways, x, kernel, bias, grad_y)
    return {
        "layer": f"{images}x{channels}x{side}x{side} stride {stride}",
        "layout": "NHWC, with gradients",
        "repeats": repeats,
        **_rates(times, 3 * 18 * images * channels * (side // stride) ** 2, 0.0),
    }


def shifted(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, *, stride: int, channels_last: bool
) -> jax.Array:
    """A 3x3 depthwise convolution with SAME padding as nine shifted multiply-adds."""
    first = 1 if channels_last else 2
    per_channel = (lambda w: w) if channels_last else (lambda w: w[:, None, None])
    out = x.shape[first] // stride
    pads = [(0, 0)] * 4
    pads[first] = pads[first + 1] = (1, 1) if stride == 1 else (0, 1)
    x = jnp.pad(x, pads)
    total = per_channel(bias)
    for i in range(3):
        for j in range(3):
            begin, end, step = [0] * 4, list(x.shape), [1] * 4
            for axis, at in ((first, i), (first + 1, j)):
                begin[axis], end[axis], step[axis] = at, at + (out - 1) * stride + 1, stride
            total = total + jax.lax.slice(x, begin, end, step) * per_channel(kernel[i, j, 0])
    return jax.nn.relu6(total)


def time_ways(ways: Ways, *operands: jax.Array, seconds: float = 0.6) -> dict[str, list[float]]:
    """The times in microseconds of each way's calls, which alternate."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        jax.block_until_ready(run(*operands))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(ways))]) < 5:
        for name, run in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*operands))
            times[name].append((time.perf_counter() - start) * 1e6)
    return times


def _rates(times_us: dict[str, list[float]], flops: int, sparsity: float) -> dict[str, Any]:
    def rates(name: str, samples: list[float]) -> dict[str, float]:
        median_us = statistics.median(samples)
        useful = flops * (1 - sparsity) if name in ("csr", "block 4x1") else flops
        return {
            "time_us": round(median_us, 1),
            "best_us": round(min(samples), 1),
            "effective_gflops": round(flops / median_us / 1e3, 1),
            "useful_gflops": round(useful / median_us / 1e3, 1),
        }

    return {name: rates(name, samples) for name, samples in times_us.items()}


def show(rows: list[dict[str, Any]]) -> None:
    """One line for each layer, and the totals of the network with speed-ups over the first way."""
    ways = [name for name, value in rows[0].items() if isinstance(value, dict)]
    for row in rows:
        cells = (
            f"{name} {row[name]['time_us']:8.1f} ({row[name]['best_us']:.1f})" for name in ways
        )
        rates = " ".join(f"{row[name]['useful_gflops']:6.1f}" for name in ways)
        print(f"  {row['layer']:24s}", "  ".join(cells), "  useful GFLOP/s", rates, flush=True)
    for kind, word in (("time_us", "medians"), ("best_us", "best calls")):
        total = {name: sum(row["repeats"] * row[name][kind] for row in rows) for name in ways}
        first = total[ways[0]]
        cells = (f"{name} {sum_us:.0f} ({first / sum_us:.2f}x)" for name, sum_us in total.items())
        print(f"  {'all layers, ' + word:24s}", "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--only", choices=("pointwise", "depthwise"))
    args = parser.parse_args()
    print(f"instruction set {_ffi.instruction_set()}, times in us")
    rows: list[dict[str, Any]] = []
    for channels_last in (False, True):
        layout = "NHWC" if channels_last else "channel-major"
        for sparsity in SPARSITIES if args.only != "depthwise" else ():
            print(f"1x1, {layout}, {sparsity:.0%} sparse")
            rows += (part := [pointwise(sparsity, size, channels_last) for size in POINTWISE])
            show(part)
        if args.only != "pointwise":
            print(f"3x3 depthwise, {layout}")
            rows += (part := [depthwise(size, channels_last) for size in DEPTHWISE])
            show(part)
    if args.only != "pointwise":
        print("3x3 depthwise, NHWC, output and gradients of 8 images")
        rows += (part := [depthwise_training(size) for size in DEPTHWISE])
        show(part)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"instruction_set": _ffi.instruction_set(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
