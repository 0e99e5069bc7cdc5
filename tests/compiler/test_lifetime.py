"""What compile returns as an object: freed with its owner, pickled, with other weights."""

import gc
import pickle
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from sparsejax.ops import _ffi

BIG = 1 << 20  # weights: 4 MB


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


COUNTS = Path("/proc/self/io")


def num_reads():
    return int(dict(line.split(": ") for line in COUNTS.read_text().splitlines())["syscr"])


linux = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc"
)


def multiply(matrix, x):
    return jax.nn.relu(x @ matrix)


def compiled(seed=0, size=1024):
    matrix = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    return sj.compile(multiply, matrix, jnp.ones((1, size)), tune=False), matrix


@linux
def test_ten_thousand_calls_leak_nothing():
    fast, _ = compiled(size=64)
    run = jax.jit(fast)
    x = jnp.ones((1, 64))
    for _ in range(1000):
        run(x).block_until_ready()

    def growth():
        before = resident_bytes()
        for _ in range(10_000):
            run(x).block_until_ready()
        return resident_bytes() - before

    # 400 bytes a call would be seen, each time; what else the process does may take as much once.
    assert any(growth() < 4_000_000 for _ in range(3))


@pytest.mark.skipif(not COUNTS.exists(), reason="reads are counted by Linux's /proc")
def test_a_call_reads_no_file():
    fast, _ = compiled(size=64)
    run = jax.jit(lambda x: jax.lax.fori_loop(0, 1000, lambda _, x: fast(x), x))
    x = run(jnp.ones((1, 64))).block_until_ready()
    before = num_reads()
    run(x).block_until_ready()
    assert num_reads() - before < 100


@linux
def test_weights_are_freed_with_their_owners():
    def use(seed):
        fast, _ = compiled(seed)
        jax.jit(fast)(jnp.ones((1, 1024))).block_until_ready()

    def clear():
        jax.clear_caches()
        gc.collect()

    for seed in range(4):
        use(seed)
        clear()
    before = resident_bytes()
    for seed in range(4, 16):
        use(seed)
        clear()
    assert resident_bytes() - before < 6 * 4 * BIG  # all of them would be 24 times 4 MB or more


@linux
def test_what_callers_computed_in_goes_back_to_the_system():
    """Not to an allocator, which would keep some for each thread that ever called."""
    params = np.eye(64, 8192, dtype=np.float32), np.eye(8192, 8, dtype=np.float32)
    x = jnp.ones((512, 64))
    run = jax.jit(sj.compile(lambda p, x: jnp.tanh(x @ p[0]) @ p[1], params, x, tune=False))
    run(x).block_until_ready()
    one, before = _ffi.kept_bytes(), resident_bytes()
    for _ in range(3):
        threads = [threading.Thread(target=lambda: run(x).block_until_ready()) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert one > 8_000_000
    assert resident_bytes() - before < 3 * one


def test_many_functions_live_side_by_side():
    pairs = [compiled(seed, 64) for seed in range(12)]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64)), jnp.float32)
    for fast, matrix in pairs:
        np.testing.assert_allclose(jax.jit(fast)(x), multiply(matrix, x), rtol=1e-4, atol=1e-4)


def test_an_executable_keeps_its_weights():
    fast, matrix = compiled(size=64)
    x = jnp.ones((1, 64))
    run = jax.jit(fast).lower(x).compile()
    del fast
    gc.collect()
    np.testing.assert_allclose(run(x), multiply(matrix, x), rtol=1e-4, atol=1e-4)


def test_it_pickles_with_its_model():
    model = MobileNetV1Linen(num_classes=10, width=0.25)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    params = jax.jit(partial(model.init, train=False))(jax.random.key(0), x)
    fast = sj.compile(partial(model.apply, train=False), params, x, tune=False)
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(again(x), fast(x))
    assert again.report() == fast.report() or str(again.report()) == str(fast.report())


def test_other_params_are_another_function():
    fast, matrix = compiled(size=64)
    x, other = jnp.ones((3, 64)), jnp.asarray(-matrix)
    later = fast.with_params(other)
    np.testing.assert_allclose(later(x), multiply(other, x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fast(x), multiply(matrix, x), rtol=1e-4, atol=1e-4)
    del fast
    gc.collect()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(later))(x), later(x))


OTHERS = {
    "another structure": ({"b": jnp.ones((8, 4))}, r"a is missing, not float32\[8, 4\]"),
    "a leaf more": ({"a": jnp.ones((8, 4)), "b": 1.0}, "b is float, not missing"),
    "another container": ([jnp.ones((8, 4))], "a is missing"),
    "another shape": ({"a": jnp.ones((8, 5))}, r"a is float32\[8, 5\], not float32\[8, 4\]"),
    "another dtype": ({"a": jnp.ones((8, 4), jnp.bfloat16)}, r"a is bfloat16\[8, 4\]"),
    "no array": ({"a": 1.0}, "a is float, not"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_params_of_another_model_are_refused(name):
    other, why = OTHERS[name]
    apply_fn = lambda params, x: x @ params["a"]
    fast = sj.compile(apply_fn, {"a": jnp.eye(8, 4)}, jnp.ones((2, 8)), tune=False)
    with pytest.raises(ValueError, match=f"with_params needs params of the structure.*{why}"):
        fast.with_params(other)


def test_params_in_double_are_those_in_single():
    fast = sj.compile(multiply, np.eye(8, dtype=np.float32), jnp.ones((2, 8)), tune=False)
    later = fast.with_params(2 * np.eye(8))
    np.testing.assert_array_equal(later(jnp.ones((2, 8))), 2)


def test_a_traced_function_without_its_owner_says_what_is_gone():
    fast, _ = compiled(seed=77, size=64)
    lowered = jax.jit(fast).lower(jnp.ones((1, 64)))
    del fast
    jax.clear_caches()
    gc.collect()
    try:
        lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        assert "packed weights are gone" in str(error)


def test_the_report_shows_the_fusion_plan_when_asked():
    fast, _ = compiled(size=8)
    assert fast.report().fusion is None
    report = fast.report(fusion=True)
    assert report.fusion.num_after < report.fusion.num_before
    assert "DNNFusion's plan" in str(report)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32, jnp.float32])
def test_inputs_of_another_dtype_are_another_program(dtype):
    apply_fn = lambda weights, x: (x @ weights, x // 2)
    weights, x = jnp.eye(8), jnp.arange(16.0).reshape(2, 8)
    fast = sj.compile(apply_fn, weights, x, tune=False)
    fast(x)
    x = x.astype(dtype)
    for ours, plain in zip(fast(x), apply_fn(weights, x), strict=True):
        assert ours.dtype == plain.dtype
        np.testing.assert_array_equal(ours, plain)
