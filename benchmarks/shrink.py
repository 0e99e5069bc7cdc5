"""What shrinking saves: parameters, multiply-adds and plain XLA time of whole networks.

    python -m benchmarks.shrink --json FILE [--draw FILE.svg] [--counts]

Each group of channels loses 30 and 50 % of its units, least L1 norm first, in multiples of 8; with
random weights, float32, one core, one image of 224 x 224 or 128 tokens. Times are of `jax.jit`.
`--counts` takes none, `--draw` draws the counts.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from experiments.models.efficientnet_b0 import EfficientNetB0Linen
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.models.mobilenet_v2 import MobileNetV2Linen
from experiments.models.resnet import ResNet50Linen
from experiments.runs.cores import cpu_name

FRACTIONS, CALLS = (0.3, 0.5), 10
IMAGES = {
    "mobilenet_v1": MobileNetV1Linen,
    "mobilenet_v2": MobileNetV2Linen,
    "efficientnet_b0": EfficientNetB0Linen,
    "resnet50": ResNet50Linen,
}
NAMES = (*IMAGES, "decoder")
LAYERS, WIDTH, HEADS, SHARED, HIDDEN = 32, 512, 8, 4, 1408


def decoder() -> tuple[Callable, Any, Any]:
    """A causal decoder with grouped-query attention and gated layers, of 32 layers."""
    each = WIDTH // HEADS
    kernels = {"q": WIDTH, "k": SHARED * each, "v": SHARED * each, "gate": HIDDEN, "up": HIDDEN}
    shapes = {name: (WIDTH, size) for name, size in kernels.items()}
    shapes |= {"o": (WIDTH, WIDTH), "down": (HIDDEN, WIDTH), "n1": (WIDTH,), "n2": (WIDTH,)}
    layer = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}

    def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def attention(p: Any, h: jax.Array) -> jax.Array:
        q, k, v = ((h @ p[name]).reshape(len(h), -1, each) for name in "qkv")
        k, v = (jnp.repeat(x, HEADS // SHARED, axis=1) for x in (k, v))
        logits = jnp.einsum("qhd,khd->hqk", q, k) / each**0.5
        logits = jnp.where(np.tri(len(h), dtype=bool), logits, -1e9)
        out = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(logits), v)
        return out.reshape(len(h), -1) @ p["o"]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for p in params:
            x = x + attention(p, norm(x, p["n1"]))
            h = norm(x, p["n2"])
            x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
        return x

    return apply, [layer] * LAYERS, jax.ShapeDtypeStruct((128, WIDTH), np.float32)


def network(name: str) -> tuple[Callable, Any, np.ndarray]:
    """A function, random variables and an input."""
    rng = np.random.default_rng(0)
    if name == "decoder":
        apply, shapes, x = decoder()
    else:
        model, x = IMAGES[name](), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
        shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
        apply = functools.partial(model.apply, train=False)

    def weights(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        scale = max(np.prod(leaf.shape[:-1]), 1) ** -0.5
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32) * scale

    return apply, jax.tree.map(weights, shapes), rng.normal(size=x.shape).astype(np.float32)


def of_net(name: str, times: bool) -> dict[str, Any]:
    """Its counts, and times in milliseconds, whole and shrunk."""
    apply, params, x = network(name)
    start = time.perf_counter()
    groups = sj.channel_groups(apply, params, x)
    seconds = time.perf_counter() - start
    scores = sj.channel_scores(groups, params, sj.structured.channel_l1())
    versions: list[tuple[Callable, Any]] = [(apply, params)]
    for fraction in FRACTIONS:
        keep = sj.structured.best_channels(groups, scores, fraction)
        small = sj.shrink(apply, params, x, keep=keep)
        versions.append((small.apply, small.params))
    results = {
        "groups": len(groups.prunable),
        "units": sum(group.size for group in groups.prunable),
        "analysis_seconds": seconds,
        "fractions": [0.0, *FRACTIONS],
        "parameters": [sum(map(np.size, jax.tree.leaves(own))) for _, own in versions],
        "multiply_adds": [sum(sj.multiply_adds(f, own, x).values()) for f, own in versions],
    }
    return results | ({"ms": [milliseconds(f, own, x) for f, own in versions]} if times else {})


def milliseconds(apply: Callable, params: Any, x: np.ndarray) -> float:
    """The median time of a call of plain `jax.jit`."""
    run, operands = jax.jit(apply), jax.device_put((params, x))
    jax.block_until_ready(run(*operands))
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(run(*operands))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def draw(results: Mapping[str, Any], file: str) -> None:
    """Bars of what is left of the parameters and multiply-adds of each network."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "shrink"
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, kind in zip(axes, ("parameters", "multiply_adds"), strict=True):
        for index, fraction in enumerate(FRACTIONS):
            left = [100 * own[kind][index + 1] / own[kind][0] for own in results.values()]
            places = np.arange(len(left)) + 0.4 * index - 0.2
            bars = axis.bar(places, left, 0.38, label=f"{fraction:.0%} of the channels gone")
            axis.bar_label(bars, fmt="%.0f", fontsize=7)
        axis.set_xticks(range(len(results)), results, rotation=20, fontsize=8)
        axis.set_title(f"{kind.replace('_', '-')} left, %", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8
    )
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--draw", help="file for the picture of the counts")
    parser.add_argument("--counts", action="store_true", help="count, and take no times")
    parser.add_argument("--nets", nargs="+", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    results = {name: of_net(name, not options.counts) for name in options.nets}
    publish({"cpu": cpu_name(), **results}, options.json)
    if options.draw:
        draw(results, options.draw)


if __name__ == "__main__":
    main()
