"""A function in a file is the function: every kind of step, any tree, any batch, the same bits."""

import json
import pickle
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load as from_safetensors

import sparsejax as sj
from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.engine.program import Program
from sparsejax.compiler.files.encoded import VERSION, encoded
from sparsejax.compiler.files.raised import OPS, raised
from sparsejax.compiler.files.read import LoadedFunction
from sparsejax.compiler.files.write import to_bytes
from sparsejax.compiler.graph.graph import Region
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.concat import Concat
from sparsejax.ops import _ffi
from sparsejax.ops._ffi import CODES
from sparsejax.patterns.layout import BLOCKS, COLUMNS, Layout
from tests.compiler.engine.test_engine import Random
from tests.compiler.files.functions import (
    CALLS,
    IMAGE,
    NET,
    ROWS,
    convolution,
    damaged,
    drawn,
    perceptron,
    trees,
)
from tests.compiler.nodes.test_laws import CASES, inputs_of, node_of


def file_of(region, layouts=None):
    """The file of a function of the region's inputs that returns the list of its outputs."""
    structure = lambda values, kind: jax.tree.structure(kind([0] * len(values)))
    trees = structure(region.inputs, tuple), structure(region.outputs, list)
    return encoded(region, layouts or {}, *trees, np.float32)


def region_of(op, inputs):
    node = node_of(op, inputs)
    last = not isinstance(op, Concat) or op.axis == 3
    rows = inputs[0].ndim == 3
    return Region([node], node.inputs, node.outputs, rows, last)


def raised_from(region, file):
    """A region of the file's steps, and its layouts."""
    ((words, floats),), _ = _ffi.read_model(file)
    images = "channels_last" if region.channels_last else "channels_first"
    items = "rows" if region.rows else images
    one = lambda values: [(1, *value.shape[1:]) for value in values]
    return raised(Program(words, floats, {}), items, one(region.inputs), one(region.outputs))


def assert_raised(region, file, *inputs):
    """What the file's steps mean in JAX is what the region's nodes mean."""
    found, (again, _) = LoadedFunction(file), raised_from(region, file)
    meant = [interpreter(r.nodes, r.inputs, r.outputs) for r in (region, again)]
    expected, actual = jax.jit(lambda *x: [run(*x) for run in meant])(*inputs)
    for a, b, c in zip(expected, actual, found(*inputs), strict=True):
        scale = np.abs(a).max(initial=1e-6)
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5 * scale)
        np.testing.assert_allclose(c, a, rtol=2e-4, atol=2e-4 * scale)


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_node_survives(name):
    op, *shapes = CASES[name]
    inputs = inputs_of(*shapes)
    region = region_of(op, inputs)
    assert_raised(region, file_of(region), *inputs)


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("attention, chosen", VERSION),
        ("quotient", VERSION),
        ("the less", VERSION),
        ("slopes", VERSION),
        ("gate", 1),
    ],
)
def test_the_oldest_reader_is_one_that_knows_all_steps(name, reader):
    op, *shapes = CASES[name]
    graph = {}
    edited(file_of(region_of(op, inputs_of(*shapes))), lambda written: graph.update(written))
    assert graph["reader"] == reader


def test_every_step_has_its_way_back():
    assert set(OPS) == set(CODES["op"]) - {"input", "output"}


def in_file(layouts):
    """What a file has of layouts: products that skip zeros are dense ones there."""
    return {n: Layout(BLOCKS, 4) if y.storage == COLUMNS else y for n, y in layouts.items()}


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_come_back_to_the_bit(seed):
    random = Random(seed, channels_last=seed % 3 != 0).grow(6)
    region = random.head()
    program = lower(region, in_file(random.layouts))
    ((words, floats),), _ = _ffi.read_model(file := file_of(region, random.layouts))
    for made in (Program(words, floats, {}), lower(*raised_from(region, file))):
        np.testing.assert_array_equal(made.words, program.words)
        np.testing.assert_array_equal(made.floats, program.floats)
    if seed < 6:
        x = np.random.default_rng(seed).normal(size=random.input.shape).astype(np.float32)
        assert_raised(region, file, x)


@pytest.mark.parametrize("seed", range(4))
def test_layouts_are_left_that_another_instruction_set_was_given(seed):
    random = Random(seed, channels_last=True).grow(6)
    region = random.head()
    file = file_of(region, random.layouts)
    elsewhere = edited(file, lambda graph: graph.update(layouts="another"))
    ((words, _),), _ = _ffi.read_model(elsewhere)
    layouts = in_file(random.layouts)
    storages = {node: Layout(layout.storage, 0) for node, layout in layouts.items()}
    np.testing.assert_array_equal(words, lower(region, storages).words)
    x = np.random.default_rng(seed).normal(size=random.input.shape).astype(np.float32)
    here, there = (LoadedFunction(each)(x)[0] for each in (file, elsewhere))
    np.testing.assert_allclose(there, here, atol=1e-6 * np.abs(here).max())


def saved(function, params, *example, dtype=np.float32):
    fast = sj.compile(function, params, *example, tune=False)
    return fast, LoadedFunction(to_bytes(fast, dtype))


def assert_same_bits(loaded, fast, inputs):
    expected, actual = fast(*inputs), loaded(*inputs)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("states", "lengths")])
def test_what_is_loaded_computes_the_same_bits(name):
    function, params, inputs = CALLS[name]
    fast, loaded = saved(function, params, *inputs(2))
    assert_same_bits(loaded, fast, inputs(2))
    assert_same_bits(loaded, fast, inputs(0))
    if not name.startswith("rows"):  # whose layouts compile chooses anew
        assert_same_bits(loaded, fast, inputs(5))
    for actual, expected in zip(*map(jax.tree.leaves, both(loaded, fast, inputs(5))), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def both(loaded, fast, inputs):
    return loaded(*inputs), fast(*inputs)


def test_jit_vmap_grad_and_pickle_are_those_of_a_compiled_function():
    fast, loaded = saved(convolution, NET, IMAGE)
    loaded = pickle.loads(pickle.dumps(loaded))
    total = lambda run: lambda x: jnp.sum(run(x) ** 2)
    both = jax.jit(lambda x: [jax.vmap(run)(jnp.stack([x, 2 * x])) for run in (loaded, fast)])
    np.testing.assert_array_equal(*both(IMAGE))
    grads = jax.jit(lambda x: [jax.grad(total(run))(x) for run in (loaded, fast)])
    np.testing.assert_allclose(*grads(IMAGE), rtol=1e-4, atol=1e-5)


def test_a_vector_has_no_batch():
    fast, loaded = saved(perceptron, ROWS, drawn(24))
    assert_same_bits(loaded, fast, (drawn(24),))


def test_what_is_a_gate_for_one_row_is_none_for_many():
    gated = lambda params, x: ((x @ params["in"]) * jnp.tanh(x @ params["in"])) @ params["out"]
    _, loaded = saved(gated, ROWS, drawn(1, 24))
    x = drawn(5, 24)
    np.testing.assert_allclose(loaded(x), gated(ROWS, x), rtol=1e-5, atol=1e-5)


def test_a_file_is_the_same_each_time():
    fast = sj.compile(trees, NET, *CALLS["trees"][2](1), tune=False)
    assert to_bytes(fast, np.float32) == to_bytes(fast, np.float32)


def test_others_can_read_the_container(tmp_path):
    fast = sj.compile(perceptron, ROWS, drawn(1, 24), tune=False)
    sj.save(fast, path := tmp_path / "net.safetensors")
    tensors = from_safetensors(path.read_bytes())
    assert tensors["1.values"].size == np.count_nonzero(ROWS["in"])
    assert_same_bits(sj.load(path), fast, (drawn(1, 24),))


def test_names_are_the_users_paths():
    _, loaded = saved(trees, NET, *CALLS["trees"][2](1))
    names = lambda ports: [port.name for port in ports]
    assert names(loaded.inputs) == ["bias/0", "image"]
    assert names(loaded.outputs) == ["logits", "more/0", "more/1/0"]


def test_float16_halves_the_values():
    fast, half = saved(perceptron, ROWS, drawn(4, 24), dtype=np.float16)
    x = drawn(4, 24)
    np.testing.assert_allclose(half(x), fast(x), rtol=0, atol=2e-3 * np.abs(fast(x)).max())
    assert len(half._file) < len(to_bytes(fast, np.float32))


def test_numbers_beyond_float16_are_refused():
    fast = sj.compile(perceptron, ROWS | {"in": 1e5 * ROWS["in"]}, drawn(1, 24), tune=False)
    with pytest.raises(ValueError, match=r"at most 65504 .* got 2\d+ in in; pass values=.float32"):
        to_bytes(fast, np.float16)


def test_a_sparse_mobilenet_is_small():
    """At 90 % zeros, MobileNet-v1's layers take at most 0.17 of their dense bytes."""
    sizes = [(256, 256), (256, 512), (512, 512)]
    params = [(drawn(3, 3, 1, i), drawn(1, 1, i, o, zeros=0.9)) for i, o in sizes]

    def blocks(params, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        conv = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
        for depthwise, pointwise in params:
            x = conv(x, depthwise, dimension_numbers=numbers, feature_group_count=x.shape[-1])
            x = jax.nn.relu(conv(x, pointwise, dimension_numbers=numbers))
        return x

    fast = sj.compile(blocks, params, drawn(1, 2, 2, 256), tune=False)
    dense = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert len(to_bytes(fast, np.float32)) <= 0.17 * dense
    assert len(to_bytes(fast, np.float16)) <= 0.12 * dense


REFUSED = {
    "left in XLA": (
        lambda p, x: jnp.sort(perceptron(p, x)),
        r"nothing stays in XLA, .* got in XLA 1 sort \(no kind",
    ),
    "unused": (lambda p, x, y: perceptron(p, x), r"uses all of its inputs .* no use of \['1'\]"),
    "constant": (lambda p, x: (perceptron(p, x), jnp.ones(3)), "1 constant outputs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_hold_is_named(name):
    function, message = REFUSED[name]
    example = (drawn(2, 24),) * (2 if name == "unused" else 1)
    fast = sj.compile(function, ROWS, *example, tune=False)
    with pytest.raises(ValueError, match=message):
        to_bytes(fast, np.float32)


def test_other_containers_are_refused():
    from collections import namedtuple

    pair = namedtuple("Pair", ["a", "b"])
    fast = sj.compile(lambda p, x: pair(perceptron(p, x), x), ROWS, drawn(2, 24), tune=False)
    with pytest.raises(TypeError, match=r"outputs in tuples, lists and dicts .* got Pair"):
        to_bytes(fast, np.float32)
    with pytest.raises(TypeError, match=r"function that sj\.compile made, got the function"):
        sj.save(perceptron, "nowhere")
    with pytest.raises(ValueError, match="or \"float16\", got 'int8'"):
        sj.save(fast, "nowhere", values="int8")


BAD_CALLS = {
    "shape": (
        drawn(2, 25),
        ValueError,
        r"input as float32\[batch, 24\] \(the first has a batch of 2\)",
    ),
    "rank": (drawn(24), ValueError, r"got float32\[24\]"),
    "dtype": (np.ones((2, 24), np.int32), ValueError, r"got int32\[2, 24\]"),
    "tree": ([drawn(2, 24)], TypeError, "needs inputs as"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_other_inputs_are_refused(name):
    x, error, message = BAD_CALLS[name]
    _, loaded = saved(perceptron, ROWS, drawn(1, 24))
    with pytest.raises(error, match=message):
        loaded(x)


def edited(file, edit):
    """The file with another graph."""
    from safetensors.numpy import save as to_safetensors

    *_, text = _ffi.read_model(file)
    graph = json.loads(text)
    edit(graph)
    return to_safetensors(from_safetensors(file), {"sparsejax": json.dumps(graph)})


ROWS_FILE = to_bytes(sj.compile(perceptron, ROWS, drawn(2, 24), tune=False), np.float32)
FILE = to_bytes(sj.compile(trees, NET, *CALLS["trees"][2](1), tune=False), np.float32)
LAYER = 2  # the first of its steps with weights
EDITS = {
    "newer": (
        lambda g: g.update(reader=VERSION + 1),
        f"needs a reader of version {VERSION + 1}, this one is",
    ),
    "no version": (lambda g: g.pop("reader"), "needs a reader of version 0"),
    "op": (lambda g: g["steps"][LAYER].update(op="prod"), "'op' is nothing that .* knows: 'prod'"),
    "a value": (lambda g: g["values"][0].pop(), "a value has no size"),
    "huge": (lambda g: g["values"].append([1 << 14] * 3), "values take more than 1 GiB"),
    "input": (lambda g: g["steps"][LAYER].update(inputs=[99]), "weights stand where none belong"),
    "order": (lambda g: g["steps"].reverse(), "a bias does not have the shape"),
    "argument": (lambda g: g["steps"][0].update(argument=2), "none of its inputs and outputs"),
    "shape": (lambda g: g["inputs"][0]["shape"].append(1), "a shape is not that of its value"),
    "a dtype": (lambda g: g["inputs"][0].update(dtype="int8"), "is of a type this reader"),
    "a port more": (lambda g: g["inputs"].append(g["inputs"][0]), "belongs to no step"),
    "a window": (lambda g: g["steps"][LAYER].update(window=[3]), "'window' needs 2 numbers"),
    "a word": (lambda g: g["steps"][LAYER].update(window=["a", 3]), "'window' holds what is no"),
    "cells": (lambda g: g["steps"][LAYER]["weights"].update(block=2), "weights do not"),
    "a block": (lambda g: g["steps"][LAYER]["weights"].update(block=3), "stored in a way"),
    "bounds": (lambda g: g["steps"][LAYER].update(bounds=7), "the bounds of a function"),
    "a tree": (lambda g: g.update(input_tree={"set": [0]}), r"a tree holds \{'set'"),
    "leaves": (lambda g: g.update(output_tree={"list": [0, 2, 1]}), "leaves 0 to 2 in order"),
    "fraction": (lambda g: g.update(version=1.5), "no JSON of whole numbers"),
}


@pytest.mark.parametrize("fields", [{"strides": [2, 1]}, {"pads": [1, 0]}, {"gate": 0}])
def test_rows_do_not_meet(fields):
    file = edited(ROWS_FILE, lambda graph: graph["steps"][1].update(fields))
    with pytest.raises(ValueError, match="a step works on several rows at once"):
        LoadedFunction(file)


@pytest.mark.parametrize("name", EDITS)
def test_a_graph_that_could_not_be_run_is_named(name, tmp_path):
    edit, message = EDITS[name]
    (tmp_path / "net").write_bytes(edited(FILE, edit))
    with pytest.raises(ValueError, match=f"load needs a file that sj.save wrote, got .*{message}"):
        sj.load(tmp_path / "net")


def test_a_file_of_every_older_version_loads():
    """Written by that version, with what it computed; add a pair of files with each new version."""
    folder = Path(__file__).parent
    written = sorted(folder.glob("version*.safetensors"))
    assert [path.stem for path in written] == [f"version{v}" for v in range(1, VERSION + 1)]
    for path in written:
        known = dict(np.load(path.with_suffix(".npz")))
        inputs = {name: known.pop(name) for name in ("image", "shift")}
        outputs = sj.load(path)(inputs)
        assert set(outputs) == set(known)
        for name, expected in known.items():
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-5, atol=1e-5)


def test_no_memory_is_said_in_a_sentence(tmp_path, monkeypatch):
    def full(file):
        raise MemoryError("std::bad_alloc")

    (tmp_path / "net").write_bytes(FILE)
    monkeypatch.setattr(_ffi, "read_model", full)
    with pytest.raises(MemoryError, match=r"load found no memory for the weights in .*net\."):
        sj.load(tmp_path / "net")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_say_so_or_load(seed):
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(100):
        try:
            LoadedFunction(damaged(rng, FILE))
        except ValueError:
            refused += 1
    assert 20 < refused < 100  # what weights are is not said twice
