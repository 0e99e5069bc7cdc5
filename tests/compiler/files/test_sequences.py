"""Loops and several regions in a file: any batch where items stay apart, and nothing unsafe."""

import json
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

import sparsejax as sj
from sparsejax.compiler.files.read import LoadedFunction
from sparsejax.compiler.files.write import to_bytes
from sparsejax.ops import _ffi
from tests.compiler.files.functions import (
    CALLS,
    LOOPS,
    damaged,
    drawn,
    lengths,
    masked,
    recurrent,
    states,
)

X = drawn(2, 7, 6)


def saved(function, params, x):
    fast = sj.compile(function, params, x, tune=False)
    return fast, LoadedFunction(to_bytes(fast, np.float32))


def assert_close(actual, expected):
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_states_over_time_are_reduced_for_any_number_of_items():
    x = {"x": X, "mask": masked(2, 7)}
    _, loaded = saved(states, LOOPS, jax.tree.map(lambda leaf: leaf[:1], x))
    assert [port.shape for port in loaded.outputs] == [
        ("batch", 16),
        ("batch",),
        ("batch", 16),
        ("batch",),
    ]
    assert_close(loaded(x), jax.jit(states)(LOOPS, x))


def test_lengths_and_tokens_are_whole_numbers_for_any_number_of_items():
    params, x = LOOPS | {"tokens": drawn(5, 6)}, CALLS["lengths"][2](3)[0]
    fast, loaded = saved(lengths, params, jax.tree.map(lambda leaf: leaf[:1], x))
    ports = [str(port) for port in (*loaded.inputs, *loaded.outputs)]
    assert ports == [
        "int32[batch]",
        "int32[batch, 7]",
        "bool[batch]",
        "int32[batch]",
        "float32[batch, 16]",
        "float32[batch, 16]",
    ]
    expected = jax.jit(lengths)(params, x)
    assert_close(loaded(x), expected)
    assert_close(loaded.in_jax(x), expected)
    file = to_bytes(fast, np.float32)
    assert json.loads(_ffi.read_model(file)[1])["reader"] == 4


TRUTHS = jnp.logical_and, jnp.logical_or, jnp.logical_xor
# name -> dtype of two arrays, and what a file has to make of them as JAX does
NUMBERS = {
    "comparisons": (np.float32, lambda a, b: [a < b, a <= b, a > b, a >= b, a == b, a != b]),
    "floats": (np.float32, lambda a, b: [a / b, jnp.minimum(a, b), abs(a), jnp.clip(a, -b, b)]),
    "chosen": (np.float32, lambda a, b: [jnp.where(a > b, 1 / a, b), jnp.where(a != a, b, a)]),
    "whole": (np.int32, lambda a, b: [lax.div(a, b + 9), lax.rem(a, b + 9), a % 3, a.astype(bool)]),
    "truths": (np.int32, lambda a, b: [f(a > 0, b > 0) for f in TRUTHS] + [~(a > 0)]),
    "reduced": (np.int32, lambda a, b: [a.sum(1), b.min(1), (a > b).any(1), (a > b).all(1)]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_arithmetic_between_layers_is_that_of_jax(name):
    dtype, function = NUMBERS[name]
    a, b = (np.round(3 * drawn(3, 5)).astype(dtype) for _ in range(2))
    if dtype == np.float32:
        a[0], b[:, 0] = [0, np.inf, -np.inf, np.nan, 1], [0, 1, np.nan]
    weights = {"w": drawn(6, 2)}
    both = lambda params, x: (x["layer"] @ params["w"], function(x["a"], x["b"]))
    x = {"a": a, "b": b, "layer": drawn(3, 6)}
    _, loaded = saved(both, weights, x)
    pair = loaded(x), jax.jit(both)(weights, x)
    for actual, expected in zip(*map(jax.tree.leaves, pair), strict=True):
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def file():
    return to_bytes(sj.compile(recurrent, LOOPS, X[:1], tune=False), np.float32)


def test_a_recurrent_network_saved_for_one_takes_any_number():
    model = nn.RNN(nn.OptimizedLSTMCell(8))
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)
    params = jax.tree.map(lambda leaf: drawn(*leaf.shape, zeros=0.5), shapes)
    _, loaded = saved(model.apply, params, X[:1])
    shapes = [str(port) for port in (*loaded.inputs, *loaded.outputs)]
    assert shapes == ["float32[batch, 7, 6]", "float32[batch, 7, 8]"]
    assert_close(loaded(X), jax.jit(model.apply)(params, X))
    layers = loaded.report().layers
    assert [layer.does[-4:] == " x 7" for layer in layers] == [False] * 4 + [True] * 4


def over_time(params, x):
    """The first axis is time, and there are no items."""
    turn = lambda h, x: (jnp.tanh(x @ params["in"] + h @ params["own"]),) * 2
    return lax.scan(turn, jnp.zeros(16), x)[1] @ params["own"]


def test_a_loop_under_vmap_is_saved_by_an_example_of_one():
    params, rest = eqx.partition(eqx.nn.GRUCell(6, 8, key=jax.random.key(0)), eqx.is_array)

    def mapped(params, x):
        cell = eqx.combine(params, rest)
        turn = lambda h, x: (cell(x, h),) * 2
        return jax.vmap(lambda item: lax.scan(turn, jnp.zeros(8), item)[1])(x)

    _, loaded = saved(mapped, params, X[:1])
    assert loaded.inputs[0].shape == ("batch", 7, 6)
    assert_close(loaded(X), jax.jit(mapped)(params, X))


def counted(params, x):
    """The turns swap what they carry, and count; one of three is read by nobody."""
    turn = lambda i, c: (c[1], jnp.tanh(c[0] @ params["own"]), c[2] + 1)
    return lax.fori_loop(0, 3, turn, (x, 2 * x, 0))[:2]


def own_starts(params, x):
    """Each item begins elsewhere."""
    start = jnp.arange(32.0).reshape(2, 16) / 32
    turn = lambda h, x: (jnp.tanh(x @ params["in"] + h @ params["own"]), None)
    return lax.scan(turn, start, x.swapaxes(0, 1))[0]


def mixed(params, x):
    """Images, then rows of them, then images again: three regions."""
    conv = lambda x: lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = jax.nn.relu(conv(x)).reshape(len(x), 6, 4 * 3)
    return conv(jax.nn.relu(y @ params["mix"]).reshape(x.shape))


KERNEL = {"kernel": drawn(3, 3, 3, 3), "mix": drawn(12, 12)}


def test_a_loaded_loop_has_gradients_and_batches():
    x = drawn(2, 16)
    _, loaded = saved(counted, LOOPS, x)
    total = lambda run: lambda x: sum(jnp.sum(y**2) for y in run(x))
    both = (loaded, lambda x: counted(LOOPS, x))
    run = jax.jit(lambda x: [(jax.grad(total(f))(x), jax.vmap(f)(x[None])) for f in both])
    assert_close(*run(x))


# name -> function, params, input, shape of the first input in the file, what is warned of
FUNCTIONS = {
    "time alone": (over_time, LOOPS, X[0], (7, 6), "a loop goes along the axis of the items"),
    "swapped": (counted, LOOPS, drawn(2, 16), ("batch", 16), None),
    "own starts": (own_starts, LOOPS, X, (2, 7, 6), r"constant of shape .* differs from item to"),
    "three regions": (mixed, KERNEL, drawn(2, 6, 4, 3), ("batch", 6, 4, 3), None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_batch_is_free_where_items_stay_apart(name, recwarn):
    function, params, x, shape, warned = FUNCTIONS[name]
    _, loaded = saved(function, params, x)
    assert loaded.inputs[0].shape == shape
    more = np.concatenate([x, x[:1]]) if warned is None else x
    assert_close(loaded(more), jax.jit(function)(params, more))
    (said,) = [str(warning.message) for warning in recwarn] or [None]
    assert said == warned or re.search(f"^the batch of the saved .* as .*{warned}", said)


def edited(file, edit):
    _, text = _ffi.read_model(file)
    graph = json.loads(text)
    edit(graph, graph["sequence"], first_loop(graph["sequence"]))
    return to_safetensors(from_safetensors(file), {"sparsejax": json.dumps(graph)})


def first_loop(sequence):
    return next(part for part in sequence["parts"] if "loop" in part)


def of_kind(sequence, kind):
    return next(part for part in sequence["parts"] if kind in part)


EDITS = {
    "no program": (lambda g, s, loop: of_kind(s, "call").update(call=99), "calls no program"),
    "no list": (lambda g, s, loop: s.pop("parts"), "a sequence lacks a list"),
    "programs": (lambda g, s, loop: g.update(programs={}), "programs are no list"),
    "null": (lambda g, s, loop: s["parts"][0].update(inputs=None), "'inputs' is no list"),
    "kind": (lambda g, s, loop: s["parts"].append({}), "of a kind this reader does not know"),
    "unmade": (
        lambda g, s, loop: loop["inputs"].__setitem__(0, len(s["values"]) - 1),
        "no earlier part",
    ),
    "twice": (lambda g, s, loop: s["parts"].insert(1, s["parts"][0]), "makes what is there"),
    "turns": (lambda g, s, loop: loop.update(loop=6), "inputs are not those that are given"),
    "many turns": (lambda g, s, loop: loop.update(loop=10**17), "a loop takes too long"),
    "no turns": (lambda g, s, loop: loop.update(loop=0), "a loop takes too long"),
    "carried": (lambda g, s, loop: loop.update(carried=99), "too few values"),
    "nested": (
        lambda g, s, loop: first_loop(loop["body"]).update(loop=10**9),
        "loops take too long",
    ),
    "body": (lambda g, s, loop: loop["body"]["outputs"].pop(), "outputs are not those"),
    "handed on": (
        lambda g, s, loop: loop["body"]["outputs"].__setitem__(0, 1),
        "not made in its turn",
    ),
    "huge": (lambda g, s, loop: s["values"].append(1 << 28), "more than 1 GiB"),
    "view": (lambda g, s, loop: of_kind(s, "view").update(begin=9**9), "a view reaches out"),
    "back": (lambda g, s, loop: of_kind(s, "view").update(view=[1, 0, 2, -(9**9)]), "reaches out"),
    "join": (lambda g, s, loop: of_kind(s, "join")["inputs"].append(0), "a join"),
    "pieces": (lambda g, s, loop: of_kind(s, "join").update(join=11), "not so many parts"),
    "constant": (lambda g, s, loop: of_kind(s, "constant").update(constant=99), "not in the"),
    "items": (
        lambda g, s, loop: g["programs"][0]["inputs"][0].update(shape=[6]),
        "no free batch|no",
    ),
    "batch": (lambda g, s, loop: g["outputs"][0].update(shape=[7, 5]), "has another batch"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_sequence_that_could_not_be_run_is_named(name, file):
    edit, message = EDITS[name]
    with pytest.raises(ValueError, match=message):
        LoadedFunction(edited(file, edit))


@pytest.fixture(scope="module")
def looked_up():
    params, x = LOOPS | {"tokens": drawn(5, 6)}, CALLS["lengths"][2](1)
    return to_bytes(sj.compile(lengths, params, *x, tune=False), np.float32)


TAKES = {
    "no rows": ({"take": 0}, "a take's table has no size"),
    "many rows": ({"take": 10**12}, "a take's table has no size"),
    "floats": ({"floats": 5}, "a take's sizes do not fit"),
    "no floats": ({"floats": -1}, "a take's table has no size"),
    "constant": ({"constant": 10**6}, "a constant is not in the file"),
    "before": ({"constant": -1}, "a constant is not in the file"),
    "inputs": ({"inputs": []}, "a take needs a table, indices and one output"),
}


@pytest.mark.parametrize("name", TAKES)
def test_a_lookup_that_could_not_be_run_is_named(name, looked_up):
    change, message = TAKES[name]
    with pytest.raises(ValueError, match=message):
        LoadedFunction(edited(looked_up, lambda g, s, loop: of_kind(s, "take").update(change)))


def test_an_index_outside_is_the_nearest_or_none():
    params, index = {"table": drawn(4, 3), "w": drawn(3, 2)}, np.array([[-9, 0, 3, 99]], np.int32)

    def function(params, x):
        rows = lambda mode: jnp.take(params["table"], x, axis=0, mode=mode)
        return rows("clip"), rows("fill") @ params["w"]

    _, loaded = saved(function, params, index)
    assert_close(loaded(index), jax.jit(function)(params, index))
    assert_close(loaded.in_jax(index), jax.jit(function)(params, index))


def test_damaged_sequences_say_so_or_load(file):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        try:
            _ffi.read_model(damaged(rng, file))
        except ValueError:
            refused += 1
    assert 10 < refused < 60
