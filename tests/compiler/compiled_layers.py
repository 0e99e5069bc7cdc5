"""Functions of layers that compile should recognise, and the kinds of node they become."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

X = jax.random.normal(jax.random.key(0), (2, 6, 7, 8))
ROWS = jax.random.normal(jax.random.key(1), (3, 5, 8))


def weights(*shape, seed=1, keep=1.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(shape) * (rng.random(shape) < keep), jnp.float32)


P = {
    "one": weights(1, 1, 8, 8, keep=0.3),
    "other": weights(1, 1, 8, 8, seed=3),
    "full": weights(3, 3, 8, 8),
    "depthwise": weights(3, 3, 1, 8),
    "grouped": weights(3, 3, 2, 8),
    "down": weights(1, 1, 8, 2),
    "up": weights(1, 1, 2, 8),
    "matrix": weights(8, 12, keep=0.5),
    "square": weights(8, 8),
    "heads": weights(8, 2, 6),
    "merge": weights(2, 6, 8),
    "head_bias": weights(2, 6),
    "scale": weights(8),
    "shift": weights(8, seed=2),
}


def conv(x, kernel, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def norm(x, p):
    return (x - p["shift"]) * lax.rsqrt(jnp.square(p["scale"]) + 1e-3) * p["scale"] + p["shift"]


def depthwise(x, p, **options):
    return conv(x, p["depthwise"], feature_group_count=8, **options)


def excited(p, x, mean=lambda x: x.mean((1, 2), keepdims=True)):
    gate = jax.nn.silu(conv(mean(x), p["down"]) + 1)
    return x * jax.nn.sigmoid(conv(gate, p["up"]))


def shuffled(x, groups=4):
    split = x.reshape(*x.shape[:3], groups, -1)
    return split.swapaxes(3, 4).reshape(x.shape)


def average(x, window, strides, padding):
    total = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *strides, 1), padding)
    return total / (window[0] * window[1])


def average_inside(x, factor=None):
    window = functools.partial(
        lax.reduce_window,
        init_value=0.0,
        computation=lax.add,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding="SAME",
    )
    total = window(x) if factor is None else window(x) * factor
    return total / window(jnp.ones((1, *x.shape[1:3], 1)))


def attention_like(p, x):
    heads = jnp.einsum("btk,khd->bthd", x, p["heads"]) + p["head_bias"]
    return jnp.einsum("bthd,hdk->btk", jax.nn.tanh(heads * 0.3), p["merge"]) + p["shift"]


def layers_by_scan(p, x):
    stacked = jnp.stack([p["square"], 2 * p["square"]])
    return lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, stacked)[0]


@jax.custom_vjp
def doubled_gradient(x):
    return jnp.sin(x)


doubled_gradient.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))

# name -> function of params and images, kinds of the nodes that it becomes
IMAGES = {
    "norm, relu": (lambda p, x: jax.nn.relu(norm(conv(x, p["full"]), p)), ["Conv + relu"]),
    "norm, relu6": (lambda p, x: jax.nn.relu6(norm(depthwise(x, p), p)), ["Conv + relu6"]),
    "norm, hard_swish": (
        lambda p, x: jax.nn.hard_swish(norm(conv(x, p["one"]), p)),
        ["Conv + hard_swish"],
    ),
    "strides": (lambda p, x: conv(x, p["full"], (2, 3), "VALID"), ["Conv"]),
    "asymmetric": (lambda p, x: conv(x, p["full"], padding=((2, 0), (0, 3))), ["Conv"]),
    "dilated": (lambda p, x: conv(x, p["full"], rhs_dilation=(2, 1)), ["Conv"]),
    "grouped": (lambda p, x: norm(conv(x, p["grouped"], feature_group_count=4), p), ["Conv"]),
    "residual": (lambda p, x: jax.nn.relu(norm(conv(x, p["one"]), p) + x), ["Conv + x + relu"]),
    "two branches": (
        lambda p, x: jax.nn.relu(norm(conv(x, p["one"]), p) + norm(conv(x, p["other"]), p)),
        ["Conv", "Conv + x + relu"],
    ),
    "activation before residual": (
        lambda p, x: jax.nn.silu(conv(x, p["one"])) + x,
        ["Conv + silu", "add"],
    ),
    "residual, norm": (lambda p, x: norm(conv(x, p["one"]) + x, p), ["Conv + x", "Affine"]),
    "norm, relu, conv": (
        lambda p, x: conv(jax.nn.relu(norm(x, p)), p["full"]),
        ["Affine + relu", "Conv"],
    ),
    "shift before padding": (lambda p, x: conv(norm(x, p), p["full"]), ["Affine", "Conv"]),
    "scale before padding": (lambda p, x: conv(x * p["scale"], p["full"]), ["Conv"]),
    "shift, no padding": (
        lambda p, x: conv(norm(x, p), p["full"], padding="VALID"),
        ["Conv"],
    ),
    "scale before groups": (
        lambda p, x: conv(x * p["scale"], p["grouped"], feature_group_count=4),
        ["Conv"],
    ),
    "used twice": (
        lambda p, x: (lambda y: norm(y, p) + jax.nn.relu(y))(conv(x, p["one"])),
        ["Conv", "Affine", "identity + relu", "add"],
    ),
    "output in the middle": (
        lambda p, x: (lambda y: (y, jax.nn.relu(y)))(conv(x, p["one"])),
        ["Conv", "identity + relu"],
    ),
    "gate": (excited, ["Mean", "Conv + silu", "Conv + sigmoid", "mul"]),
    "gate from (N, C)": (
        lambda p, x: excited(p, x, lambda x: x.mean((1, 2))[:, None, None]),
        ["Mean", "Conv + silu", "Conv + sigmoid", "mul"],
    ),
    "gate by sum": (
        lambda p, x: x * jax.nn.sigmoid(x.sum((1, 2)) * (1 / 42.0))[:, None, None],
        ["Mean", "identity + sigmoid", "Reshape", "mul"],
    ),
    "max pool": (
        lambda p, x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
        ),
        ["max"],
    ),
    "average pool": (lambda p, x: average(x, (2, 3), (2, 1), "SAME"), ["average"]),
    "average inside": (lambda p, x: average_inside(x), ["average"]),
    "twice the average inside": (
        lambda p, x: average_inside(x, 2.0),
        ["average", "Affine", "Known", "div"],
    ),
    "sums of windows": (lambda p, x: 6 * average(x, (2, 3), (2, 1), "SAME"), ["average", "Affine"]),
    "padded average": (
        lambda p, x: average(jnp.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0))), (3, 3), (2, 2), "VALID"),
        ["average"],
    ),
    "global max": (lambda p, x: x.max((1, 2)), ["max", "Reshape"]),
    "global average": (lambda p, x: x.mean((1, 2)), ["Mean"]),
    "concat": (
        lambda p, x: conv(jnp.concatenate([x[..., :3], x[..., 3:] + x[..., :5]], -1), p["one"]),
        ["Channels", "Channels", "Channels", "add", "Concat", "Conv"],
    ),
    "shuffle": (lambda p, x: conv(shuffled(x), p["full"]), ["Conv"]),
    "reverse": (lambda p, x: conv(x[..., ::-1], p["one"]), ["Conv"]),
    "every other": (lambda p, x: x[..., 1::2], ["Channels"]),
    "reverse, groups": (
        lambda p, x: conv(x[..., ::-1], p["grouped"], feature_group_count=4),
        ["Channels", "Conv"],
    ),
    "parts of outputs": (
        lambda p, x: (lambda y: y[..., :3] * jax.nn.sigmoid(y[..., 5:]))(conv(x, p["full"])),
        ["Conv", "Conv + sigmoid", "mul"],
    ),
    "parts that overlap": (
        lambda p, x: (lambda y: y[..., :5] * y[..., 3:])(conv(x, p["one"])),
        ["Conv", "Channels", "Channels", "mul"],
    ),
    "parts and the whole": (
        lambda p, x: (lambda y: (y, y[..., :5]))(conv(x, p["one"])),
        ["Conv", "Channels"],
    ),
    "split": (lambda p, x: jnp.multiply(*jnp.split(x, 2, -1)), ["Channels", "Channels", "mul"]),
    "pad": (
        lambda p, x: conv(
            jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))), p["full"], padding=((0, 0), (1, 0))
        ),
        ["Conv"],
    ),
    "pad of ones": (
        lambda p, x: conv(
            jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=1), p["full"]
        ),
        ["pad", "Conv"],
    ),
    "crop": (lambda p, x: conv(x, p["full"], padding=((-1, 1), (0, 1))), ["conv_general_dilated"]),
    "flatten": (
        lambda p, x: x.reshape(2, -1) @ jnp.tile(p["square"], (42, 1)),
        ["Reshape", "Linear"],
    ),
    "dense on images": (lambda p, x: jax.nn.gelu(x @ p["matrix"]), ["Conv + gelu_tanh"]),
    "x plus x": (lambda p, x: (lambda y: y + y)(conv(x, p["one"])), ["Conv", "add"]),
    "scalars": (lambda p, x: 3.0 - conv(x, p["one"]) / 2.0 * 4.0, ["Conv"]),
    "minus": (lambda p, x: -conv(x, p["one"]), ["Conv"]),
    "infinite scale": (
        lambda p, x: conv(x, p["one"]) / jnp.zeros(8),
        ["Conv", "div"],
    ),
    "remat": (lambda p, x: jax.checkpoint(lambda y: jax.nn.relu(conv(y, p["one"])))(x), None),
    "custom gradient": (
        lambda p, x: doubled_gradient(conv(x, p["one"])),
        ["Conv", "custom_vjp_call"],
    ),
    "cond": (lambda p, x: lax.cond(x.sum() > 0, lambda: conv(x, p["one"]), lambda: -x), None),
    "integers": (lambda p, x: jnp.round(conv(x, p["one"])).astype(jnp.int32), None),
}
VECTORS = {
    "dense": (lambda p, x: jax.nn.relu(x @ p["matrix"] + 0.5), ["Linear + relu"]),
    "left": (lambda p, x: (p["matrix"].T @ x[0].T).T, None),
    "residual": (lambda p, x: jnp.tanh(x @ p["square"] + x), ["Linear + x + tanh"]),
    "heads": (attention_like, ["Linear + tanh", "Linear"]),
    "two": (
        lambda p, x: (x @ p["square"] + p["shift"]) + x @ p["square"].T,
        ["Linear", "Linear + x"],
    ),
    "scale first": (lambda p, x: (x * p["scale"] + p["shift"]) @ p["matrix"], ["Linear"]),
    "scan": (layers_by_scan, ["Linear + tanh", "Linear + tanh"]),
    "gathered": (lambda p, x: x[:, :2] @ p["matrix"], ["slice", "Linear"]),
    "both computed": (lambda p, x: jnp.einsum("bik,bjk->bij", x, x), ["dot_general"]),
    "weights by batch": (
        lambda p, x: jnp.einsum("btk,bkd->btd", x, p["full"][:, 0]),
        ["Linear", "Linear", "Linear", "Part", "Part", "Part", "Stack"],
    ),
}
