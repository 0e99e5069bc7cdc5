"""Small functions of weights and inputs, with the multiply-adds of each leaf worked by hand."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

import sparsejax as sj


class Case(NamedTuple):
    """f(params, x) and what each leaf of the params takes part in; `lost` is named instead."""

    f: Any
    params: dict[str, Any]  # shapes
    x: tuple[int, ...]
    counts: dict[str, int]
    lost: dict[str, str] = {}  # noqa: RUF012
    refused: str = ""  # what calibrate cannot look through
    stacked: bool = False  # the first axis of three is that of layers


def drawn(case):
    """Params and inputs."""
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {name: draw(shape) for name, shape in case.params.items()}, draw(case.x)


def check_counts(case):
    """The multiply-adds are those worked by hand, and what is lost is named."""
    params, x = jax.eval_shape(lambda: drawn(case))
    named = "|".join(f"all of {leaf}: .* through `{how}`" for leaf, how in case.lost.items())
    with pytest.warns(sj.SparsityWarning, match=named) if named else contextlib.nullcontext():
        assert sj.multiply_adds(case.f, params, x) == case.counts


W = {"w": (4, 8)}
X = (2, 4)  # two rows into (4, 8): 64 multiply-adds


def double(f):
    """f behind a custom derivative."""
    own = jax.custom_vjp(f)
    own.defvjp(lambda *a: (f(*a), None), lambda _, g: (g, g))
    return own


def conv(x, w, strides=(1, 1), padding="SAME", **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout, **options)


def rms(x):
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def sharded(f, in_specs, out_specs):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs)


def attention(p, x):
    q, k, v = (jnp.einsum("td,dhe->the", x, p[name]) for name in "qkv")
    scores = jax.nn.softmax(jnp.einsum("the,she->hts", q, k))
    return jnp.einsum("the,hed->td", jnp.einsum("hts,she->the", scores, v), p["o"])


def heads(p, x):
    """Queries and keys with shifts and scales of (heads, size)."""
    q, k = (jnp.einsum("btd,dhe->bthe", x, p[name]) + p["b"] for name in "qk")
    scores = jnp.einsum("bthe,bshe->bhts", rms(q) * p["s"], rms(k) * p["s"])
    return jnp.einsum("bhts,bshe->bthe", jax.nn.softmax(scores), k)


HEADS = {**dict.fromkeys("qk", (6, 2, 3)), **dict.fromkeys("bs", (2, 3))}

CASES = {
    "dense": Case(lambda p, x: x @ p["w"], W, X, {"w": 64}),
    "transposed": Case(lambda p, x: x @ p["w"].T, {"w": (8, 4)}, X, {"w": 64}),
    "named": Case(lambda p, x: x @ checkpoint_name(p["w"], "w"), W, X, {"w": 64}),
    "negative": Case(lambda p, x: x @ -p["w"], W, X, {"w": 64}),
    "scaled": Case(lambda p, x: x @ (0.5 * p["w"] / 3.0), W, X, {"w": 64}),
    "cast": Case(lambda p, x: x @ p["w"].astype(jnp.bfloat16).astype(x.dtype), W, X, {"w": 64}),
    "masked": Case(lambda p, x: x @ (p["w"] * (jnp.abs(p["w"]) > 0.1)), W, X, {"w": 64}),
    "reshaped": Case(lambda p, x: x @ p["w"].reshape(2, 2, 8).reshape(4, 8), W, X, {"w": 64}),
    "concatenated": Case(
        lambda p, x: x @ jnp.concatenate([p["a"], p["b"]], 1),
        *({"a": (4, 2), "b": (4, 6)}, X, {"a": 16, "b": 48}),
    ),
    "sliced": Case(
        lambda p, x: (x @ p["w"][:, :2], x @ p["w"][:, 2:6], x @ p["w"][:, 6:]), W, X, {"w": 64}
    ),
    "split": Case(
        lambda p, x: [x @ part for part in jnp.split(p["w"], 2, axis=1)], W, X, {"w": 64}
    ),
    "padded": Case(lambda p, x: x @ jnp.pad(p["w"], ((0, 0), (0, 2))), W, X, {"w": 64}),
    "reversed": Case(lambda p, x: x @ p["w"][::-1], W, X, {"w": 64}),
    "jit": Case(lambda p, x: jax.jit(jnp.matmul)(x, p["w"]), W, X, {"w": 64}),
    "remat": Case(lambda p, x: jax.checkpoint(jnp.matmul)(x, p["w"]), W, X, {"w": 64}),
    "custom_vjp": Case(lambda p, x: double(jnp.matmul)(x, p["w"]), W, X, {"w": 64}),
    "cond": Case(
        lambda p, x: lax.cond(x.sum() > 0, lambda w: x @ w, lambda w: 2 * (x @ w), p["w"]),
        *(W, X, {"w": 64}),
    ),
    "cond_of_two": Case(
        lambda p, x: lax.cond(x.sum() > 0, lambda p: x @ p["a"], lambda p: x @ p["b"], p),
        *({"a": (4, 8), "b": (4, 8)}, X, {"a": 64, "b": 64}),
    ),
    "while": Case(
        lambda p, x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ p["w"], x),
        *({"w": (4, 4)}, X, {"w": 32}),
    ),
    "fori": Case(
        lambda p, x: lax.fori_loop(0, 3, lambda i, c: c @ p["w"], x), {"w": (4, 4)}, X, {"w": 96}
    ),
    "scanned": Case(
        lambda p, x: lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, p["w"])[0],
        *({"w": (3, 4, 4)}, X, {"w": 96}),
        stacked=True,
    ),
    "scanned_rows": Case(
        lambda p, x: lax.scan(lambda c, row: (c, row @ p["w"]), 0.0, x)[1], W, X, {"w": 64}
    ),
    "stacked_here": Case(
        lambda p, x: lax.scan(lambda c, w: (c @ w, None), x, jnp.stack([p["a"], p["b"], p["b"]]))[
            0
        ],
        *({"a": (4, 4), "b": (4, 4)}, X, {"a": 32, "b": 64}),
    ),
    "scan_of_remat": Case(
        lambda p, x: lax.scan(jax.checkpoint(lambda c, w: (rms(c) * w["s"] @ w["w"], None)), x, p)[
            0
        ],
        *({"w": (3, 4, 4), "s": (3, 4)}, X, {"w": 96}),
        stacked=True,
    ),
    "vmap": Case(lambda p, x: jax.vmap(lambda row: p["w"].T @ row)(x), W, X, {"w": 64}),
    "experts": Case(
        lambda p, x: jax.vmap(jnp.matmul, (None, 0))(x, p["w"]),
        {"w": (3, 4, 8)},
        X,
        {"w": 192},
        stacked=True,
    ),
    "one_of_the_layers": Case(
        lambda p, x: lax.fori_loop(0, 3, lambda i, c: c @ p["w"][i], x),
        *({"w": (3, 4, 4)}, X, {"w": 96}),
        refused="dynamic_slice",
    ),
    "rms_norm": Case(
        lambda p, x: (rms(x) * p["scale"]) @ p["w"],
        *({"scale": (64,), "w": (64, 32)}, (1, 64), {"w": 2048}),
    ),
    "bias": Case(
        lambda p, x: jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"],
        *({"w": (4, 8), "b": (8,), "v": (8, 2)}, X, {"w": 64, "v": 32}),
    ),
    "weight_norm": Case(
        lambda p, x: x @ (p["w"] * (p["g"] / jnp.linalg.norm(p["w"], axis=0))),
        *({"w": (4, 8), "g": (8,)}, X, {"w": 64}),
        refused="mul",
    ),
    "low_rank": Case(
        lambda p, x: x @ (p["w"] + p["a"] @ p["b"]),
        *({"w": (4, 8), "a": (4, 2), "b": (2, 8)}, X, {"w": 64, "a": 64, "b": 64}),
        refused="add",
    ),
    "embedding": Case(
        lambda p, x: jnp.take(p["table"], (x > 0).astype(int)[:, 0], axis=0) @ p["table"].T,
        *({"table": (5, 4)}, X, {"table": 40}),
    ),
    "both_ways": Case(lambda p, x: x @ p["w"] @ p["w"].T, W, X, {"w": 128}, refused="one way"),
    "attention": Case(
        attention,
        {**dict.fromkeys("qkv", (6, 2, 3)), "o": (2, 3, 6)},
        *((5, 6), dict.fromkeys("qkvo", 180)),
    ),
    "conv": Case(
        lambda p, x: conv(x, p["w"], (2, 2)), {"w": (3, 3, 2, 4)}, (1, 8, 8, 2), {"w": 16 * 72}
    ),
    "grouped": Case(
        lambda p, x: conv(x, p["w"], feature_group_count=2),
        *({"w": (3, 3, 2, 6)}, (1, 5, 5, 4), {"w": 25 * 6 * 18}),
    ),
    "depthwise": Case(
        lambda p, x: conv(x, p["w"], feature_group_count=4),
        *({"w": (3, 3, 1, 4)}, (1, 5, 5, 4), {"w": 25 * 36}),
    ),
    "transposed_conv": Case(
        lambda p, x: lax.conv_transpose(x, p["w"], (2, 2), "SAME"),
        *({"w": (2, 2, 3, 5)}, (1, 4, 4, 3), {"w": 16 * 60}),
    ),
    "sharded_rows": Case(
        lambda p, x: sharded(jnp.matmul, (P("data"), P()), P("data"))(x, p["w"]),
        W,
        X,
        {"w": 64},
        refused="shard_map",
    ),
    "sharded_inputs": Case(
        lambda p, x: sharded(
            lambda x, w: lax.psum(x @ w, "data"), (P(None, "data"), P("data")), P()
        )(x, p["w"]),
        *(W, X, {"w": 64}),
        refused="shard_map",
    ),
    "rolled": Case(lambda p, x: x @ jnp.roll(p["w"], 1, 0), W, X, {"w": 64}),
    "where": Case(lambda p, x: x @ jnp.where(np.eye(4, 8) > 0, p["w"], 0.0), W, X, {"w": 64}),
    "updated": Case(lambda p, x: x @ p["w"].at[0].set(0.0), W, X, {}, {"w": "scatter"}),
    "picked": Case(lambda p, x: x @ p["w"][np.array([3, 1, 0, 2])], W, X, {}, {"w": "gather"}),
    "window": Case(
        lambda p, x: x @ lax.dynamic_slice(p["w"], (jnp.argmax(x[0]), 0), (4, 8)),
        *({"w": (6, 8)}, X, {"w": 64}),
        refused="dynamic_slice",
    ),
    "scaled_by_data": Case(lambda p, x: x @ (p["w"] * x.mean()), W, X, {"w": 64}, refused="mul"),
    "switched_by_data": Case(
        lambda p, x: x @ jnp.where(x[0, 0] > 0, p["w"], 0.0), W, X, {"w": 64}, refused="select_n"
    ),
    "masked_by_data": Case(lambda p, x: x @ (p["w"] * (x[0] > 0)[:, None]), W, X, {}, {"w": "mul"}),
    "masked_twice": Case(
        lambda p, x: x @ (2 * (p["w"] * (x[0] > 0)[:, None]) * x[1][:, None]),
        W,
        X,
        {},
        {"w": "mul"},
    ),
    "vector": Case(lambda p, x: x @ (p["w"] * x.mean()), {"w": (4,)}, X, {"w": 8}, refused="mul"),
    "heads": Case(heads, HEADS, (2, 4, 6), {"q": 288, "k": 288}),
    "heads_of_one_token": Case(heads, HEADS, (1, 1, 6), {"q": 36, "k": 36}),
    "shifted_by_data": Case(lambda p, x: x @ (p["w"] + x.mean()), W, X, {}, {"w": "add"}),
    "joined_with_data": Case(
        lambda p, x: x @ jnp.concatenate([p["w"], x.T], 1), W, X, {}, {"w": "concatenate"}
    ),
    "written_out": Case(
        lambda p, x: (x[:, :, None] * p["w"]).sum(1), W, X, {"w": 64}, refused="mul"
    ),
    "position": Case(lambda p, x: (x + p["t"]) @ p["w"], {"t": (2, 4), "w": (4, 8)}, X, {"w": 64}),
    "outer": Case(lambda p, x: jnp.outer(x[:, 0], p["w"]), {"w": (8,)}, X, {}),
    "einsum_of_batches": Case(
        lambda p, x: jnp.einsum("bgi,gio->bgo", x.reshape(2, 2, 2), p["w"]),
        *({"w": (2, 2, 8)}, X, {"w": 64}),
        stacked=True,
    ),
    "mapped": Case(lambda p, x: lax.map(lambda row: row @ p["w"], x), W, X, {"w": 64}),
    "mapped_weights": Case(
        lambda p, x: lax.map(lambda w: x @ w, p["w"]),
        *({"w": (3, 4, 8)}, X, {"w": 192}),
        stacked=True,
    ),
    "nested_jits": Case(
        lambda p, x: jax.jit(lambda p, x: jax.jit(jnp.dot)(x, p["w"].T.T))(p, x), W, X, {"w": 64}
    ),
    "sorted": Case(lambda p, x: x @ jnp.sort(p["w"]), W, X, {}, {"w": "sort"}),
    "of_an_expert": Case(
        lambda p, x: x @ jnp.take(p["w"], jnp.argmax(x[0]), axis=0),
        *({"w": (3, 4, 8)}, X, {}, {"w": "gather"}),
    ),
    "solved": Case(
        lambda p, x: lax.linalg.triangular_solve(p["w"], x.T, left_side=True),
        *({"w": (4, 4)}, X, {}, {"w": "triangular_solve"}),
    ),
    "summed": Case(
        lambda p, x: x @ (p["a"] + p["b"]),
        *({"a": (4, 8), "b": (4, 8)}, X, {}, {"a": "add", "b": "add"}),
    ),
}
