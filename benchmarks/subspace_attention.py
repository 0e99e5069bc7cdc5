"""Subspace attention against the block in whose place it stands, by compile and by jax.jit.

    taskset -c 0 python -m benchmarks.subspace_attention --json subspace_attention.json

The blocks that the paper's networks replace: a depthwise-separable one of MobileNet-v1 on 512 maps
of 14 x 14, and inverted residuals of MobileNet-v2 on 96 (14 x 14) and 160 (7 x 7). Each is timed
alone, as compile runs it (`block`) and with the module for it (`attention`, 4 groups); then
MobileNet-v1 at 224 pixels with and without its block 8. `saved` is what the module takes off, in
milliseconds of compile. Outputs are compared with jax.jit first. Random weights, float32, one core.
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
from flax import nnx

import sparsejax as sj
from benchmarks import publish
from experiments.models.attention import Attention
from experiments.models.mobilenet_v1 import DepthwiseSeparable, MobileNetV1
from experiments.models.mobilenet_v2 import BlockShape, InvertedResidual
from experiments.runs.cores import bind, usable_cores
from experiments.runs.timing import relative_error, warm_ms

GROUPS, REPLACED = 4, 8
Model = Callable[[jax.Array], jax.Array]


def blocks() -> dict[str, tuple[nnx.Module, int, int]]:
    """Block, channels and side of each place."""
    rngs = nnx.Rngs(0)
    options: dict[str, Any] = {"momentum": 0.9, "rngs": rngs}
    separable = DepthwiseSeparable(512, 512, 1, depthwise=jax.lax.conv_general_dilated, **options)
    inverted = lambda c: InvertedResidual(BlockShape(c, 6 * c, c, 1), **options)
    return {
        "v1, 512 maps of 14 x 14": (separable, 512, 14),
        "v2, 96 maps of 14 x 14": (inverted(96), 96, 14),
        "v2, 160 maps of 7 x 7": (inverted(160), 160, 7),
    }


def ways(name: str, model: Any, x: jax.Array, tune: bool) -> dict[str, Callable]:
    """Calls of one model by jax.jit and by compile."""
    model.eval()
    graph, state = nnx.split(model)
    apply = lambda state, x: nnx.merge(graph, state)(x)
    dense = jax.jit(apply)
    fast = sj.compile(apply, state, x, tune=tune)
    error = relative_error(fast(x), dense(state, x))
    if not error <= 1e-5:
        raise SystemExit(f"{name}: compile differs from jax.jit by {error}; nothing was timed.")
    return {
        f"{name}, compile": functools.partial(fast, x),
        f"{name}, jax.jit": functools.partial(dense, state, x),
    }


def row(block: Any, attention: Any, x: jax.Array, repeats: int, tune: bool) -> dict[str, float]:
    """Milliseconds of all ways, and what the module saves."""
    calls = {**ways("block", block, x, tune), **ways("attention", attention, x, tune)}
    times = warm_ms(calls, repeats)
    saved = times["block, compile"] - times["attention, compile"]
    return {f"{name} ms": round(ms, 4) for name, ms in times.items()} | {"saved": round(saved, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--side", type=int, default=224, help="of the image of MobileNet-v1")
    parser.add_argument("--tune", action="store_true", help="measure the layouts")
    options = parser.parse_args()
    bind(usable_cores()[:1])
    rng = np.random.default_rng(0)
    image = lambda side, channels: jnp.asarray(rng.random((1, side, side, channels)), jnp.float32)
    results = {}
    for name, (block, channels, side) in blocks().items():
        module = sj.nn.ULSAM(channels, groups=GROUPS, rngs=nnx.Rngs(1))
        results[name] = row(block, module, image(side, channels), options.repeats, options.tune)
    nets = [
        MobileNetV1(attention=attention, rngs=nnx.Rngs(0))
        for attention in ((), (Attention(REPLACED, groups=GROUPS, replaces=True),))
    ]
    results["MobileNet-v1"] = row(
        *nets, image(options.side, 3), max(options.repeats // 3, 1), options.tune
    )
    publish(results, options.json)


if __name__ == "__main__":
    main()
