"""What shapes and callers of one compiled function share, and what none of them waits for."""

import gc
import os
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj
from sparsejax.compiler import compiled
from sparsejax.compiler.engine import call
from sparsejax.compiler.engine.call import load
from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.layouts import tune
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.shelf import Shelf
from sparsejax.ops import _ffi

SIZE, LAYERS = 96, 4
VALUE, OUTPUT = Value((64, 256), FLOAT32), Value((64, 256), FLOAT32)


def stack(seed=0):
    rng = np.random.default_rng(seed)
    kept = rng.random((LAYERS, SIZE, SIZE)) < 0.1
    return jnp.asarray(kept * rng.normal(size=kept.shape), jnp.float32)


def apply(params, x):
    for matrix in params:
        x = jnp.tanh(x @ matrix)
    return x


def rows(count):
    return np.random.default_rng(count).normal(size=(count, SIZE)).astype(np.float32)


def expected(params, x):
    for matrix in np.asarray(params):
        x = np.tanh(x @ matrix)
    return x


def test_batch_sizes_share_their_weights():
    jax.clear_caches()  # programs of other tests are alive until then
    gc.collect()
    params, before = stack(), _ffi.packed_bytes()
    fast = sj.compile(apply, params, rows(60), tune=False)
    packed = _ffi.packed_bytes() - before
    nonzeros = np.count_nonzero(params)
    assert 4 * nonzeros < packed < 12 * nonzeros
    for count in (64, 61, 113, 500):
        np.testing.assert_allclose(fast(rows(count)), expected(params, rows(count)), atol=1e-5)
    assert _ffi.packed_bytes() - before == packed
    del fast
    jax.clear_caches()
    gc.collect()
    assert _ffi.packed_bytes() == before


def unpacked(monkeypatch):
    """From now on nothing can be written for the engine, so that all must be shared."""
    monkeypatch.setattr(call, "lower", None)
    monkeypatch.setattr(tune.Chooser, "__call__", None)


@pytest.mark.parametrize("first", [60, 1])
def test_few_rows_and_many_share_their_weights(first):
    jax.clear_caches()  # programs of other tests are alive until then
    gc.collect()
    params, before = stack(first), _ffi.packed_bytes()
    fast = sj.compile(apply, params, rows(first), tune=False)
    packed = _ffi.packed_bytes() - before
    for count in (1, 2, 16, 17, 60):
        np.testing.assert_allclose(fast(rows(count)), expected(params, rows(count)), atol=1e-5)
    assert _ffi.packed_bytes() - before == packed


@pytest.mark.parametrize("counts", [(60, 17, 61, 400), (5, 2, 9, 16)])
def test_batch_sizes_are_neither_chosen_nor_packed_again(monkeypatch, counts):
    """Few rows, which are packed in one way, or many."""
    params = stack()
    fast = sj.compile(apply, params, rows(counts[0]), tune=False)
    unpacked(monkeypatch)
    for count in counts:
        np.testing.assert_allclose(fast(rows(count)), expected(params, rows(count)), atol=1e-5)
    x = rows(counts[0])
    np.testing.assert_allclose(jax.vmap(fast)(x[None])[0], fast(x), atol=1e-6)


def normed(params, x):
    y = lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(y * params["scale"] + params["shift"])


def test_batches_of_images_run_one_program_and_sizes_share_folded_weights(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 4, 8), "scale": (8,), "shift": (8,)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    image = lambda *shape: rng.normal(size=(*shape, 4)).astype(np.float32)
    fast = sj.compile(normed, params, image(2, 6, 6), tune=False)
    fast(image(1, 9, 7))
    unpacked(monkeypatch)
    for x in (image(5, 6, 6), image(3, 9, 7)):
        np.testing.assert_allclose(fast(x), normed(params, x), atol=1e-5)
    ops = [node.op for made in fast._versions.values() for node in made.graph.nodes]
    assert len(ops) == 4 and len({id(op.weights) for op in ops}) == 1


def test_the_shelf_tells_equal_arrays_from_others():
    one, two = np.arange(6.0), np.arange(6.0)
    shelf = Shelf({"one": one})
    assert shelf.array(one[:3]) is shelf.array(one[:3])
    assert shelf.array(one[:3]) is not shelf.array(one[3:])
    assert shelf.array(one[:3]) is not shelf.array(one[:6:2])
    folded = shelf.array(2 * two)
    assert shelf.array(2 * two) is folded and shelf.array(2 * two + 1) is not folded
    assert shelf.array((2 * two).reshape(2, 3)) is not folded


def test_callers_leave_an_arena_a_core():
    params, x = stack(), rows(48)
    fast = sj.compile(apply, params, x, tune=False)
    fast(x)
    one = _ffi.kept_bytes()
    threads = [threading.Thread(target=fast, args=(x,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < _ffi.kept_bytes() <= max(2, os.cpu_count()) * max(one, 1 << 20)


def test_a_known_shape_waits_for_no_other():
    reached, go_on = threading.Event(), threading.Event()

    def slow(params, x):
        if len(x) == 3:
            reached.set()
            assert go_on.wait(60)
        return apply(params, x)

    params = stack()
    fast = sj.compile(slow, params, rows(2), tune=False)
    other = threading.Thread(target=fast, args=(rows(3),))
    other.start()
    assert reached.wait(60)
    np.testing.assert_allclose(fast(rows(2)), expected(params, rows(2)), atol=1e-5)
    go_on.set()
    other.join()


def test_one_shape_is_compiled_once_for_all_who_wait():
    traced = []

    def counted(params, x):
        traced.append(len(x))
        time.sleep(0.05)
        return apply(params, x)

    fast = sj.compile(counted, stack(), rows(2), tune=False)
    threads = [threading.Thread(target=fast, args=(rows(5),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traced.count(5) == 1


def test_other_weights_are_not_traced_again():
    calls = []

    def counted(params, x):
        calls.append(1)
        return apply(params["layers"], x) * params["times"]

    params = {"layers": stack(), "times": 2.0}
    fast = sj.compile(counted, params, rows(2), tune=False)
    fast(rows(3))
    traced, other = len(calls), {"layers": stack(1), "times": 2.0}
    later = fast.with_params(other)
    for count in (2, 3):
        y = 2 * expected(other["layers"], rows(count))
        np.testing.assert_allclose(later(rows(count)), y, atol=1e-5)
    assert len(calls) == traced
    again = fast.with_params({**other, "times": 3.0})  # no array: the trace depends on it
    y = 3 * expected(other["layers"], rows(2))
    np.testing.assert_allclose(again(rows(2)), y, atol=1e-5)


def test_shapes_that_are_called_no_more_are_forgotten(monkeypatch):
    monkeypatch.setattr(compiled, "MAX_SHAPES", 2)
    fast = sj.compile(apply, stack(), rows(2), tune=False)
    for count in (3, 2, 4):
        fast(rows(count))
    shapes = [treedef_and_types[1][0][0] for treedef_and_types in fast._versions]
    assert shapes == [(2, SIZE), (4, SIZE)]
    np.testing.assert_allclose(fast(rows(3)), expected(stack(), rows(3)), atol=1e-5)


def test_jax_weights_are_not_copied():
    params = stack()
    fast = sj.compile(apply, params, rows(2), tune=False)
    assert fast._params.ctypes.data == params.unsafe_buffer_pointer()


def test_profiling_lets_others_run():
    """At 5 ms a switch of threads, the other would not have run 20 times within one call."""
    layer = Node(Linear(np.ones((256, 256), np.float32), np.zeros(256)), [VALUE], [OUTPUT])
    _, program = load(lower(Region([layer], [VALUE], [OUTPUT], rows=True), {}))
    count, done = 0, threading.Event()

    def other():
        nonlocal count
        while not done.is_set():
            count += 1
            time.sleep(0.0001)

    thread = threading.Thread(target=other)
    thread.start()
    time.sleep(0.01)
    before, start = count, time.perf_counter()
    while time.perf_counter() - start < 0.05:
        program.profile(50)
    ran = count - before
    done.set()
    thread.join()
    assert ran > 20


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_of_what_is_closed_over_there_is_one_copy(kind):
    weights, scale = kind(np.asarray(stack())[0]), np.full((), 2, np.float32)
    fast = sj.compile(lambda scale, x: apply([weights], x) * scale, scale, rows(2), tune=False)
    fast(rows(30))
    consts = [c for made in fast._versions.values() for c in made.traced.closed.consts]
    large = [c for c in consts if np.size(c) == np.size(weights)]
    assert len(large) == 2 and large[0] is large[1] and large[0] is not weights
    if kind is jnp.asarray:
        weights.delete()
    later = fast.with_params(np.full((), 3, np.float32))
    np.testing.assert_allclose(later(rows(2)), 3 * expected(stack()[:1], rows(2)), atol=1e-5)
