"""Functions that multiply weights and data element by element: products, scales and shifts."""

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.models.mobilenet_v1 import shifted_depthwise
from tests.jaxprs.traced_functions import Case, rms

W, X = {"w": (4, 8)}, (2, 4)
ROWS = {"w": (2, 4)}  # of the shape of the data
IMAGE, KERNEL = (1, 5, 5, 4), {"w": (3, 3, 1, 4)}  # 25 places, 9 weights, 4 channels
SAME = {"x": ((0, 0), (1, 1), (1, 1), (0, 0))}["x"]


def windows(x, size=3):
    """The shifted images of a window, padded as SAME does."""
    wide = jnp.pad(x, SAME)
    height, width = x.shape[1:3]
    return [wide[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]


def over_rows(p, x):
    """A depthwise convolution in a loop, its window a row after the other."""
    kernel = p["w"].reshape(9, 4)
    step = lambda y, pair: (y + pair[0] * pair[1], None)
    return lax.scan(step, jnp.zeros_like(x), (jnp.stack(windows(x)), kernel))[0]


def indexed(p, x):
    wide = jnp.stack(windows(x))
    step = lambda i, y: y + wide[i] * p["w"].reshape(9, 4)[i]
    return lax.fori_loop(0, 9, step, jnp.zeros_like(x))


def layer_norm(x, axes=-1):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.var(x, axes, keepdims=True) + 1e-6)


def flax_norm(p, x):
    """A norm as flax writes it, its scale first multiplied into the deviations."""
    scale = lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-6) * p["s"]
    return (x - x.mean(-1, keepdims=True)) * scale + p["b"]


def batch_norm(p, x):
    return (x - p["mean"]) * (lax.rsqrt(p["var"] + 1e-3) * p["s"]) + p["b"]


def residuals(p, x):
    """Each branch has a row of one table for a scale; the stream is read by the next."""
    for row in p["s"]:
        x = x + row * jnp.tanh(rms(x))
    return rms(x)


def scanned_residuals(p, x):
    return rms(lax.scan(lambda x, row: (x + row * jnp.tanh(rms(x)), None), x, p["s"])[0])


# What is added up is a product, and each multiply one multiply-add.
PRODUCTS = {
    "matrix": Case(lambda p, x: (x[:, :, None] * p["w"]).sum(1), W, X, {"w": 64}),
    "rows": Case(lambda p, x: sum(x[:, i, None] * p["w"][i] for i in range(4)), W, X, {"w": 64}),
    "other_side": Case(
        lambda p, x: (p["w"].T * x[:, None]).sum(-1).astype(jnp.bfloat16), W, X, {"w": 64}
    ),
    "mapped": Case(
        lambda p, x: jax.vmap(lambda row: jnp.mean(row[:, None] * p["w"], 0))(x), W, X, {"w": 64}
    ),
    "like_the_data": Case(lambda p, x: (p["w"][None] * x[None]).sum((1, 2)), ROWS, X, {"w": 8}),
    "along_channels": Case(lambda p, x: (p["w"] * x).sum(-1), {"w": (4,)}, X, {"w": 8}),
    "of_numbers": Case(lambda p, x: sum(x[0, i] * p["w"][i] for i in range(4)), W, X, {"w": 32}),
    "negative": Case(lambda p, x: -(2 * (x[:, :, None] * -p["w"])).sum(1) / 3, W, X, {"w": 64}),
    "masked": Case(
        lambda p, x: jnp.where(x > 0, x * p["w"], 0.0).sum(-1), {"w": (4,)}, X, {"w": 8}
    ),
    "stacked": Case(
        lambda p, x: jnp.stack([x[:, i, None] * p["w"][i] for i in range(4)]).sum(0),
        *(W, X, {"w": 64}),
    ),
    "joined": Case(
        lambda p, x: jnp.concatenate([x[:, :2] * p["a"], x[:, 2:] * p["b"]], 1).sum(1),
        *({"a": (2,), "b": (2,)}, X, {"a": 4, "b": 4}),
    ),
    "in_pieces": Case(
        lambda p, x: jax.jit(lambda y: y.reshape(2, 2, 2, 8).sum(1).sum(1))(x[:, :, None] * p["w"]),
        *(W, X, {"w": 64}),
    ),
    "remat": Case(
        jax.checkpoint(lambda p, x: (jnp.sin(x)[:, :, None] * p["w"]).sum(1)), W, X, {"w": 64}
    ),
    "running": Case(lambda p, x: jnp.cumsum(x * p["w"], -1)[:, -1], {"w": (4,)}, X, {"w": 8}),
    "shifted": Case(
        lambda p, x: shifted_depthwise(x, p["w"], (1, 1), "SAME"), KERNEL, IMAGE, {"w": 900}
    ),
    "shifted_and_strided": Case(
        lambda p, x: jax.nn.relu(shifted_depthwise(x, p["w"], (2, 2), "SAME") + p["b"]),
        *({**KERNEL, "b": (4,)}, IMAGE, {"w": 324}),
    ),
    "shifted_onto_a_bias": Case(
        lambda p, x: reduce(
            lambda y, pair: y + pair[0] * pair[1],
            zip(windows(x), p["w"].reshape(9, 4), strict=True),
            p["b"],
        ),
        *({**KERNEL, "b": (4,)}, IMAGE, {"w": 900}),
    ),
    "shifted_in_a_loop": Case(over_rows, KERNEL, IMAGE, {"w": 900}),
    "depthwise_1d": Case(
        lambda p, x: sum(x[:, i : i + 3] * p["w"][i] for i in range(3)),
        *({"w": (3, 4)}, (2, 5, 4), {"w": 2 * 3 * 3 * 4}),
    ),
    "one_of_two_branches": Case(
        lambda p, x: lax.cond(
            x.sum() > 0, lambda: (x[:, :, None] * p["w"]).sum(1), lambda: x @ p["w"]
        ),
        *(W, X, {"w": 64}),
    ),
    "twice": Case(lambda p, x: x @ p["w"] + (x[:, :, None] * p["w"]).sum(1), W, X, {"w": 128}),
    "each_turn": Case(
        lambda p, x: lax.fori_loop(0, 3, lambda i, y: (y[:, :, None] * p["w"]).sum(1), x),
        *({"w": (4, 4)}, X, {"w": 96}),
    ),
    "blended": Case(  # four kernels with weights of their own: 4 * 32, then the product
        lambda p, x: sum(x[0, i] * p["w"][i] for i in range(4)).sum(0),
        *({"w": (4, 4, 8)}, X, {"w": 128}),
    ),
    "after_a_norm": Case(
        lambda p, x: ((rms(x) * p["s"])[:, :, None] * p["w"]).sum(1), {"s": (4,), **W}, X, {"w": 64}
    ),
}

# What cannot be told to be a product of one leaf is named.
NAMED = {
    "indexed_in_a_loop": Case(indexed, KERNEL, IMAGE, {}, {"w": "dynamic_slice"}),
    "of_a_sum": Case(
        lambda p, x: (x[:, :, None] * (p["a"] + p["b"])).sum(1),
        *({"a": (4, 8), "b": (4, 8)}, X, {}, {"a": "add", "b": "add"}),
    ),
    "picked": Case(
        lambda p, x: (x[:, :, None] * p["w"][np.array([3, 1, 0, 2])]).sum(1),
        *(W, X, {}, {"w": "gather"}),
    ),
    "updated": Case(
        lambda p, x: (x[:, :, None] * p["w"].at[0].set(0.0)).sum(1), W, X, {}, {"w": "scatter"}
    ),
    "shifted_by_data": Case(lambda p, x: x @ (p["w"] + x.mean()), W, X, {}, {"w": "add"}),
}

# Scales and shifts have none, whatever comes after them.
AFFINE = {
    "layer_norms": Case(
        lambda p, x: layer_norm(layer_norm(x) * p["s"] + p["b"]) * p["s"],
        *({"s": (4,), "b": (4,)}, X, {}),
    ),
    "norms_without_shift": Case(
        lambda p, x: layer_norm(layer_norm(x) * p["s"]), {"s": (4,)}, X, {}
    ),
    "flax_norms": Case(
        lambda p, x: flax_norm(p, x + flax_norm(p, x)), {"s": (4,), "b": (4,)}, X, {}
    ),
    "norm_of_an_image": Case(
        lambda p, x: layer_norm(layer_norm(x, (1, 2, 3)) * p["s"] + p["b"], (1, 2, 3)),
        *({"s": (5, 5, 4), "b": (5, 5, 4)}, IMAGE, {}),
    ),
    "norm_of_rows": Case(
        lambda p, x: layer_norm(x, (0, 1)) * p["s"] + p["b"], {"s": (2, 4), "b": (2, 4)}, X, {}
    ),
    "norm_then_pool": Case(
        lambda p, x: (layer_norm(x) * p["s"] + p["b"]).mean((1, 2)),
        *({"s": (4,), "b": (4,)}, IMAGE, {}),
    ),
    "norm_then_loss": Case(
        lambda p, x: (layer_norm(x) * p["s"] + p["b"]).sum(), {"s": (4,), "b": (4,)}, X, {}
    ),
    "scale_then_pool": Case(lambda p, x: (rms(x) * p["s"]).mean((1, 2)), {"s": (4,)}, IMAGE, {}),
    "average_windows": Case(
        lambda p, x: lax.reduce_window(
            x * p["s"], 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        ),
        *({"s": (4,)}, IMAGE, {}),
    ),
    "segments": Case(
        lambda p, x: jax.ops.segment_sum(x * p["s"], np.array([0, 0]), 1), {"s": (4,)}, X, {}
    ),
    "batch_norm": Case(
        lambda p, x: batch_norm(p, x) + layer_norm(x) * p["t"],
        *(dict.fromkeys(("s", "b", "mean", "var", "t"), (4,)), IMAGE, {}),
    ),
    "batch_norm_then_pool": Case(
        lambda p, x: batch_norm(p, x).mean((1, 2)),
        *(dict.fromkeys(("s", "b", "mean", "var"), (4,)), IMAGE, {}),
    ),
    "group_norm": Case(
        lambda p, x: layer_norm(
            (layer_norm(x.reshape(2, 2, 2)).reshape(2, 4) * p["s"] + p["b"]).reshape(2, 2, 2)
        ),
        *({"s": (4,), "b": (4,)}, X, {}),
    ),
    "residuals": Case(residuals, {"s": (3, 4)}, X, {}),
    "scanned_residuals": Case(scanned_residuals, {"s": (3, 4)}, X, {}),
    "two_scales": Case(
        lambda p, x: x * p["a"] + jnp.tanh(x) * p["b"], {"a": (4,), "b": (4,)}, X, {}
    ),
    "mixed_in_time": Case(
        lambda p, x: x * p["s"] + jnp.roll(x, 1, 0) * (1 - p["s"]), {"s": (4,)}, X, {}
    ),
    "averaged_in_time": Case(
        lambda p, x: lax.scan(lambda h, row: (h * p["a"] + row * p["b"],) * 2, x[0], x)[1],
        *({"a": (4,), "b": (4,)}, X, {}),
    ),
    "accumulated": Case(
        lambda p, x: lax.fori_loop(0, 3, lambda i, y: y + jnp.sin(x * i) * p["s"], x),
        *({"s": (4,)}, X, {}),
    ),
    "softmax": Case(lambda p, x: jax.nn.softmax(x * p["s"]), {"s": (4,)}, X, {}),
    "squares": Case(lambda p, x: ((x * p["s"]) ** 2).sum(), {"s": (4,)}, X, {}),
    "written_out_scores": Case(
        lambda p, x: ((rms(x) * p["s"])[:, None] * (rms(x) * p["s"])[None]).sum(-1),
        *({"s": (4,)}, X, {}),
    ),
    "positions": Case(lambda p, x: (x + p["t"]) @ (x + p["t"]).T, {"t": (2, 4)}, X, {}),
    "positions_of_scores": Case(
        lambda p, x: jax.nn.softmax((h := x + p["t"]) @ h.T) @ h, {"t": (2, 4)}, X, {}
    ),
    "positions_then_pool": Case(lambda p, x: (x + p["t"]).mean(0), {"t": (2, 4)}, X, {}),
    "positions_then_norm": Case(
        lambda p, x: layer_norm(x + p["t"]) * p["s"], {"t": (2, 4), "s": (4,)}, X, {}
    ),
    "masked_mean_of_a_table": Case(
        lambda p, x: (p["t"][(x[:, 0] > 0).astype(int)] * (x[:, :1] > 0)).sum(0),
        *({"t": (2, 4)}, X, {}),
    ),
}

CASES = {**PRODUCTS, **NAMED, **AFFINE}
