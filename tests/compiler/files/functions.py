"""Small functions of every form that a file can hold: images in both orders, rows, trees."""

from functools import partial

import jax
import numpy as np

RNG = np.random.default_rng(0)


def drawn(*shape, zeros=0.0):
    weights = RNG.normal(size=shape) * (RNG.random(shape) >= zeros)
    return weights.astype(np.float32)


def masked(items, steps):
    """1 for some first steps of each item, 0 for the others."""
    return (np.arange(steps) < RNG.integers(1, steps + 1, (items, 1))).astype(np.float32)


def damaged(rng, file):
    """The file with some bytes changed, or cut off."""
    data = bytearray(file)
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] = rng.choice([*b'0159-"[]{}, ', rng.integers(256)])
    return bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)


convolution_of = partial(
    jax.lax.conv_general_dilated,
    window_strides=(2, 2),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


def convolution(params, image):
    y = jax.nn.relu6(convolution_of(image, params["first"]))
    y = jax.nn.silu(convolution_of(y, params["depthwise"], feature_group_count=16))
    return y.mean((1, 2)) @ params["head"]


NET = {"first": drawn(3, 3, 3, 16, zeros=0.5), "depthwise": drawn(3, 3, 1, 16)}
NET |= {"head": drawn(16, 12, zeros=0.9), "odd": drawn(3, 3, 3, 5)}
IMAGE = drawn(2, 17, 15, 3)
ROWS = {"in": drawn(24, 40, zeros=0.8), "out": drawn(40, 8, zeros=0.8)}
ROWS["scale"] = drawn(8)


def perceptron(params, x):
    return jax.nn.gelu(x @ params["in"]) @ params["out"]


def normed(params, x):
    y = perceptron(params, x)
    y = (y - y.mean(-1, keepdims=True)) / jax.numpy.sqrt(y.var(-1, keepdims=True) + 1e-3)
    return jax.nn.softmax(y * params["scale"])


def attended(params, x):
    y = x @ params["in"] / 2
    heads = [y[..., i : i + 16].reshape(*y.shape[:-1], 2, 8) for i in (0, 16, 24)]
    scores = jax.numpy.einsum("bqhd,bkhd->bhqk", *heads[:2])
    y = jax.numpy.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores / 8**0.5), heads[2])
    return y.reshape(*y.shape[:2], 16) @ params["out"][:16]


def attended_from_one(params, inputs):
    """As a decoder attends to keys and values that are given."""
    q = (inputs["row"] @ params["in"][:, :16]).reshape(-1, 1, 2, 8)
    scores = jax.numpy.einsum("bqhd,bkhd->bhqk", q, inputs["keys"])
    y = jax.numpy.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), inputs["values"])
    return y.reshape(-1, 1, 16) @ params["out"][:16]


def _kept(items):
    kept = {name: drawn(items, 9, 2, 8) for name in ("keys", "values")}
    return (kept | {"row": drawn(items, 1, 24)},)


def channels_first(params, x):
    numbers = ("NCHW", "HWIO", "NCHW")
    y = jax.lax.conv_general_dilated(x, params["first"], (1, 1), "VALID", dimension_numbers=numbers)
    return y.reshape(len(y), 16 * 4 * 3)


def odd_maps(params, x):
    """Vectors of odd maps of an odd number of channels are not all in groups."""
    functions = jax.nn.silu, jax.nn.gelu, jax.nn.sigmoid
    return [f(convolution_of(x + i, params["odd"])) for i, f in enumerate(functions)]


def trees(params, inputs):
    y = convolution(params, inputs["image"]) + inputs["bias"][0]
    return {"logits": y, "more": (jax.nn.relu(y), [y])}


def recurrent(params, x):
    """Forwards and backwards over time, each step with steps of its own; the last step is left."""
    own = lambda h: jax.lax.fori_loop(0, 2, lambda _, h: jax.numpy.tanh(h @ params["own"]), h)

    def turn(carry, x):
        h, before = carry
        h = own(jax.nn.sigmoid(x @ params["in"]) * h + before)
        return (h, x @ params["in"]), h

    def over(x, reverse):
        start = (jax.numpy.full((len(x), 16), 0.5), jax.numpy.zeros((len(x), 16)))
        return jax.lax.scan(turn, start, x.swapaxes(0, 1), reverse=reverse)[1].swapaxes(0, 1)

    y = jax.numpy.concatenate([over(x, False), over(x, True)], axis=-1)
    y = jax.numpy.concatenate([y, y[:, :1]], axis=1)
    return {"all": y @ params["out"], "last": (y[:, ::-1] @ params["out"])[:, -1]}


LOOPS = {"in": drawn(6, 16, zeros=0.5), "own": drawn(16, 16, zeros=0.9), "out": drawn(32, 5)}


# name -> function, params, inputs for a batch
def states(params, inputs):
    """Steps that a mask leaves out change nothing; what classifiers make of all states."""

    def turn(h, step):
        x, mask = step[0], step[1][:, None]
        h = mask * jax.numpy.tanh(x @ params["in"] + h @ params["own"]) + (1 - mask) * h
        return h, h

    x, mask = (array.swapaxes(0, 1) for array in (inputs["x"], inputs["mask"]))
    _, ys = jax.lax.scan(turn, jax.numpy.zeros((x.shape[1], 16)), (x, mask))
    masked = (ys * mask[..., None]).sum(0)
    head = (ys.mean(0) + jax.numpy.minimum(masked, 0.5)) @ params["own"]
    return {"head": head, "most": ys.max(0), "least": ys.min((0, 2)), "steps": mask.sum(0)}


def lengths(params, inputs):
    """Tokens in both directions, as many of each item as its length says."""
    turn = lambda h, x: (jax.numpy.tanh(x @ params["in"] + h @ params["own"]),) * 2
    count, steps = inputs["length"], jax.numpy.arange(7)
    there = steps < count[:, None]
    back = (steps[::-1] + count[:, None]) % 7  # the last of each item comes first
    x = jax.numpy.take(params["tokens"], inputs["tokens"], axis=0)
    found = []
    for way in (x, jax.numpy.take_along_axis(x, back[:, :, None], 1)):
        _, ys = jax.lax.scan(turn, jax.numpy.zeros((len(x), 16)), way.swapaxes(0, 1))
        last = ys[count - 1, jax.numpy.arange(len(x))]
        most = jax.numpy.where(there.T[..., None], ys, -jax.numpy.inf).max(0)
        mean = jax.numpy.where(there.T[..., None], ys, 0).sum(0) / there.sum(1)[:, None]
        found.append((last + most + mean) @ params["own"])
    return {"states": found, "left": 7 - there.sum(1), "all": there.all(1)}


def _lengths(items):
    tokens = RNG.integers(-5, 5, (items, 7)).astype(np.int32)  # from the end, too
    return ({"length": RNG.integers(1, 8, items).astype(np.int32), "tokens": tokens},)


CALLS = {
    "images": (convolution, NET, lambda n: (drawn(n, 17, 15, 3),)),
    "channels first": (channels_first, NET, lambda n: (drawn(n, 3, 6, 5),)),
    "odd maps": (odd_maps, NET, lambda n: (drawn(n, 13, 13, 3),)),
    "rows": (perceptron, ROWS, lambda n: (drawn(n, 24),)),
    "rows of rows": (perceptron, ROWS, lambda n: (drawn(n, 3, 24),)),
    "rows and norms": (normed, ROWS, lambda n: (drawn(n, 5, 24),)),
    "rows of attention": (attended, ROWS, lambda n: (drawn(n, 5, 24),)),
    "one query": (attended_from_one, ROWS, _kept),
    "loops": (recurrent, LOOPS, lambda n: (drawn(n, 7, 6),)),
    "states": (states, LOOPS, lambda n: ({"x": drawn(n, 7, 6), "mask": masked(n, 7)},)),
    "lengths": (lengths, LOOPS | {"tokens": drawn(5, 6)}, _lengths),
    "trees": (trees, NET, lambda n: ({"image": drawn(n, 9, 8, 3), "bias": [drawn(n, 12)]},)),
}
