"""Loops and branches: their bodies are compiled once, however often they run."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import sparsejax as sj
from sparsejax.compiler.nodes.control import Control, graphs
from sparsejax.compiler.passes import turns
from sparsejax.compiler.regions.split import split
from tests.compiler.graphs import assert_close, assert_same, kinds, regions, rewritten

RNG = np.random.default_rng(0)


def weights(*shape):
    """Nine of ten are zero."""
    kept = RNG.random(shape) < 0.1
    return (RNG.normal(size=shape) * kept / np.sqrt(shape[-2] * 0.1)).astype(np.float32)


P = {"in": weights(5, 16), "own": weights(16, 16), "out": weights(16, 3)}
P |= {"stack": weights(3, 16, 16), "kernel": weights(3, 3, 4, 4), "frame": weights(3, 3, 2, 4)}
X = RNG.normal(size=(2, 7, 5)).astype(np.float32)
H = RNG.normal(size=(2, 16)).astype(np.float32)
FRAMES = RNG.normal(size=(3, 1, 6, 6, 2)).astype(np.float32)


def over(p, x, turn, **options):
    """The scan of `turn(p, h, x)` over the second axis."""
    return lax.scan(lambda h, x: turn(p, h, x), jnp.zeros((2, 16)), x.swapaxes(0, 1), **options)


def cell(p, h, x):
    h = jnp.tanh(x @ p["in"] + h @ p["own"])
    return h, h


def with_head(p, h, x):
    h = jnp.tanh(x @ p["in"] + h @ p["own"])
    return h, (h @ p["out"], x * 2, h.sum())


def carries_weights(p, x):
    """As nnx.RNN does."""
    turn = lambda c, x: ((jnp.tanh(x @ c[1]["in"] + c[0] @ c[1]["own"]), c[1]), c[0])
    return lax.scan(turn, (jnp.zeros((2, 16)), p), x.swapaxes(0, 1))[1]


def nested(p, x):
    inner = lambda h, _: (jnp.tanh(h @ p["own"]), None)
    turn = lambda p, h, x: (lax.scan(inner, h + x @ p["in"], None, length=3)[0], h)
    return over(p, x, turn)


def conv(x, kernel):
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=order)


def of_frames(p, x):
    turn = lambda h, x: (jnp.tanh(conv(h, p["kernel"]) + conv(x, p["frame"])),) * 2
    return lax.scan(turn, jnp.zeros((1, 6, 6, 4)), x)


def until(p, h):
    small = lambda c: (c[0] < 4) & (jnp.abs(c[1] @ p["out"]).sum() < 100)
    return lax.while_loop(small, lambda c: (c[0] + 1, jnp.tanh(c[1] @ p["own"])), (0, h))


def branch(p, h):
    last = lambda h: jax.nn.relu(h @ p["own"])
    return lax.cond(h.sum() > 0, lambda h: jnp.tanh(h @ p["own"]), last, h)


def random_turns(p, h):
    """The key and its constants are no arrays of NumPy's."""
    turn = lambda key, _: (jax.random.split(key)[0], jax.random.normal(key, (2, 16)) @ p["own"])
    return lax.scan(turn, jax.random.key(0), None, length=3)[1] + h


# name -> function, input, and of the layers in the report how often each runs
LOOPS = {
    "scan": (lambda p, x: over(p, x, cell), X, [1, 7]),
    "reversed": (lambda p, x: over(p, x, cell, reverse=True), X, [1, 7]),
    "two at a time": (lambda p, x: over(p, x, cell, unroll=2), X, [1, 7]),
    "head": (lambda p, x: over(p, x, with_head), X, [1, 7, 1]),
    "weights carried": (carries_weights, X, [1, 7]),
    "nested": (nested, X, [1, 21]),
    "remat": (lambda p, x: over(p, x, lambda *args: jax.checkpoint(cell)(*args)), X, [1, 7]),
    "map": (lambda p, x: lax.map(lambda x: x @ p["in"], x), X, [2]),
    "of layers": (
        lambda p, h: lax.scan(lambda h, k: (jnp.tanh(h @ k), h), h, p["stack"]),
        H,
        [1] * 3,
    ),
    "layers with remat": (
        lambda p, h: lax.scan(jax.checkpoint(lambda h, k: (jnp.tanh(h @ k), None)), h, p["stack"]),
        H,
        [1] * 3,
    ),
    "one turn": (lambda p, x: over(p, x[:, :1], cell), X, [1]),
    "frames": (of_frames, FRAMES, [1, 3]),
    "fori": (lambda p, h: lax.fori_loop(0, 5, lambda i, h: jnp.tanh(h @ p["own"]), h), H, [5]),
    "while": (until, H, [None, None]),
    "cond": (branch, H, [1, 1]),
    "switch": (
        lambda p, h: lax.switch(
            h.sum().astype(int), [lambda h: h @ p["own"], lambda h: h, lambda h: h + 1], h
        ),
        H,
        [1],
    ),
    "a branch that is known": (
        lambda p, h: lax.switch(p["which"], [lambda h: h, lambda h: h @ p["own"]], h),
        H,
        [1],
    ),
    "keys": (random_turns, H, [1]),
    "no turns": (lambda p, x: over(p, x[:, :0], cell), X, None),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_runs_its_body_packed(name):
    fn, x, expected = LOOPS[name]
    params = P | {"which": np.int32(1)}
    graph = assert_same(fn, params, x)
    if expected is None:
        return
    fast = sj.compile(fn, params, x, tune=False)
    for actual, exact in zip(
        *map(jax.tree.leaves, (jax.jit(fast)(x), jax.jit(fn)(params, x))), strict=True
    ):
        assert_close(actual, exact)
    layers = fast.report().layers
    assert [layer.turns for layer in layers] == expected
    assert all(layer.kernel == "sparse" for layer in layers)
    assert sum(len(regions(inner)) for inner in graphs(graph)) == fast.report().num_regions


def test_a_long_scan_compiles_like_a_short_one():
    """One packing for all turns: the bodies and what is before them are the same."""
    graphs_of = {
        length: rewritten(lambda p, x: over(p, x, cell), P, np.zeros((2, length, 5), np.float32))
        for length in (2, 1000)
    }
    short, long = ([str(body) for body in graphs(graph)][1:] for graph in graphs_of.values())
    assert short == long and len(long) == 1
    assert kinds(graphs_of[2]) == kinds(graphs_of[1000])
    fast = sj.compile(lambda p, x: over(p, x, cell), P, X, tune=False)
    assert "x 7" in str(fast.report())
    assert fast.report().layers[1].multiply_adds == 7 * 2 * 16 * 16


def test_weights_of_long_stacks_stay_scanned():
    fn = lambda p, h: lax.scan(lambda h, k: (jnp.tanh(h @ k + h @ p["own"]), None), h, p["long"])
    params = P | {"long": np.repeat(P["stack"], 22, 0)}
    graph = assert_same(fn, params, H)
    assert kinds(graph) == ["Scan"]
    (node,) = graph.nodes
    assert isinstance(node.op, Control) and "dot_general" in kinds(node.op.bodies[0])


def test_what_is_too_large_at_once_is_done_turn_by_turn(monkeypatch):
    monkeypatch.setattr(turns, "MAX_AT_ONCE", 7 * 2 * 16 - 1)
    within = rewritten(lambda p, x: over(p, x, cell), P, X)
    assert "Linear" not in kinds(within)
    fast = sj.compile(lambda p, x: over(p, x, cell), P, X, tune=False)
    assert [layer.turns for layer in fast.report().layers] == [7, 7]


@pytest.mark.parametrize("name", ["scan", "head", "frames", "cond"])
def test_loops_have_gradients_and_batches(name):
    fn, x, _ = LOOPS[name]
    fast = sj.compile(fn, P, x, tune=False)
    loss = lambda run: lambda x: sum((leaf**2).sum() for leaf in jax.tree.leaves(run(x)))
    exact = jax.jit(jax.grad(loss(lambda x: fn(P, x))))(x)
    assert_close(jax.jit(jax.grad(loss(fast)))(x), exact)
    many = np.stack([x, 2 * x])
    expected = jax.tree.leaves(jax.jit(jax.vmap(lambda x: fn(P, x)))(many))
    for actual, exact in zip(jax.tree.leaves(jax.jit(jax.vmap(fast))(many)), expected, strict=True):
        assert_close(actual, exact)


def linen(cell):
    model = nn.RNN(cell(16))
    return model.apply, jax.jit(model.init)(jax.random.key(0), X)


def both_ways():
    model = nn.Bidirectional(nn.RNN(nn.GRUCell(8)), nn.RNN(nn.LSTMCell(8)))
    return model.apply, jax.jit(model.init)(jax.random.key(0), X)


def of_nnx(kind):
    graph, state = nnx.split(nnx.RNN(kind(5, 16, rngs=nnx.Rngs(0))))
    return (lambda state, x: nnx.merge(graph, state)(x)), state


RECURRENT = {
    "linen LSTM": lambda: linen(nn.LSTMCell),
    "linen optimized LSTM": lambda: linen(nn.OptimizedLSTMCell),
    "linen GRU": lambda: linen(nn.GRUCell),
    "linen both ways": both_ways,
    "NNX LSTM": lambda: of_nnx(nnx.LSTMCell),
    "NNX GRU": lambda: of_nnx(nnx.GRUCell),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_networks_run_as_one_region_a_turn(name):
    apply, params = RECURRENT[name]()
    graph = assert_same(apply, params, X)
    split(graph)
    bodies = list(graphs(graph))[1:]
    assert len(bodies) == (2 if "both" in name else 1)
    for body in bodies:
        assert len(regions(body)) == 1 and body.left == {}
    assert "dot_general" not in graph.left


def equinox_like(p, x):
    """Weights on the left, parts of the result, one vector at a time."""

    def turn(h, x):
        a, b = jnp.split(p["wide"] @ h, 2)
        return jnp.tanh(a * jax.nn.sigmoid(b) + p["in"].T @ x), None

    return lax.scan(turn, jnp.zeros(16), x)[0]


@pytest.mark.parametrize("batched", [False, True])
def test_parts_of_a_transposed_product_are_products(batched):
    fn = jax.vmap(equinox_like, (None, 0)) if batched else equinox_like
    graph = assert_same(fn, P | {"wide": weights(32, 16)}, X if batched else X[0])
    (body,) = list(graphs(graph))[1:]
    assert len(regions(body)) == 1 and body.left == {}


def test_a_bias_behind_two_products_is_drawn_in():
    fn = lambda p, x: over(p, x, lambda p, h, x: (jnp.tanh(x @ p["in"] + h @ p["own"] + 1),) * 2)
    (body,) = list(graphs(assert_same(fn, P, X)))[1:]
    assert kinds(body) == ["Linear + x + tanh"]
