"""Regions that XLA runs faster go back to it; times are forged, so that no machine decides."""

import gc
import itertools
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler import compiled, court, hand_back
from sparsejax.ops import _ffi

RNG = np.random.default_rng(0)
WIDE = jnp.asarray(RNG.normal(size=(24, 40)) * (RNG.random((24, 40)) < 0.2), jnp.float32)
BACK = jnp.asarray(RNG.normal(size=(40, 24)) * (RNG.random((40, 24)) < 0.2), jnp.float32)
PARAMS = {"wide": WIDE, "back": BACK}
X = RNG.normal(size=(6, 24)).astype(np.float32)


def one_region(params, x):
    return jnp.tanh(x @ params["wide"]) @ params["back"]


def two_kinds(params, x):
    """Four regions of two kinds."""
    for _ in range(2):
        x = jnp.sort(jnp.sin(x @ params["wide"]))
        x = jnp.sort(jnp.sin(x @ params["back"]))
    return x


@pytest.fixture(autouse=True)
def own_world(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEJAX_CACHE", str(tmp_path / "times.json"))
    monkeypatch.setattr(compiled, "judge", hand_back.judge)


@pytest.fixture
def races(monkeypatch):
    """Seconds that come out of the races, by turns; what was run is checked to be the same."""
    forged, run = [], []

    def race(*runs):
        if len(runs) == 1:  # of a layer by itself in XLA, or of the custom calls
            assert runs[0]()
            return [0.25]
        first, second = (each() for each in runs)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        run.append(len(run))
        return forged.pop(0)

    monkeypatch.setattr(court, "race", race)
    return forged, run


def test_all_goes_back_where_jit_is_faster(races):
    forged, _ = races
    forged += [(3e-3, 2e-3), (3e-3, 2.5e-3)]
    gc.collect()
    before = _ffi.packed_bytes()
    with warnings.catch_warnings(action="error"):  # what is fastest is no doubt
        fast = sj.compile(one_region, PARAMS, X)
    report = fast.report()
    assert (report.num_regions, report.handed_back) == (0, 1)
    assert (report.microseconds, report.jit_microseconds) == (2000, 2000)
    assert {row.reason for row in report.layers} == {
        "jax.jit of the whole function is 1.50x faster"
    }
    assert all(row.kernel == "xla" and row.handed_back for row in report.layers)
    assert "1.50x" in str(report) and "Given back to XLA" in str(report)
    assert "sparsejax" not in jax.jit(fast).lower(X).as_text()
    np.testing.assert_allclose(fast(X), one_region(PARAMS, X), atol=1e-5)
    gc.collect()
    assert _ffi.packed_bytes() == before


@pytest.mark.parametrize("xla", [1.0, 0.96])
def test_what_is_about_as_fast_stays(races, xla):
    forged, _ = races
    forged += [(1.0, xla), (1.0, xla)]
    report = sj.compile(one_region, PARAMS, X).report()
    assert (report.num_regions, report.handed_back) == (1, 0)
    assert report.jit_microseconds == 1e6 * xla and report.outside_microseconds == 0
    assert f"{1e6 * xla:,.0f} by jax.jit alone" in str(report)


@pytest.mark.parametrize("jitted, regions", [(1.0, 0), (1.02, 0), (1.05, 1)])
def test_without_zeros_about_as_fast_is_not_enough(races, jitted, regions):
    forged, _ = races
    forged += [(1.0, jitted), (1.0, 1.1)]
    params = jax.tree.map(jnp.ones_like, PARAMS)
    report = sj.compile(one_region, params, X).report()
    assert report.num_regions == regions
    assert regions or "no zeros to skip" in report.layers[0].reason


def test_folded_layers_may_be_faster_than_both(races):
    forged, _ = races
    forged += [(1.0, 1.2), (1.0, 0.8)]
    fast = sj.compile(one_region, PARAMS, X)
    report = fast.report()
    assert (report.num_regions, report.handed_back) == (0, 1)
    assert (report.microseconds, report.jit_microseconds) == (0.8e6, 1.2e6)
    assert "1.25x faster" in report.layers[0].reason
    np.testing.assert_allclose(fast(X), one_region(PARAMS, X), atol=1e-5)


def test_the_kind_that_is_slower_goes_back_alone(races):
    """All in XLA is slower, the first kind too, but without the second the function is faster."""
    forged, _ = races
    forged += [(1.0, 3.0), (1.0, 2.0), (1.0, 0.8)]
    fast = sj.compile(two_kinds, PARAMS, X)
    report = fast.report()
    assert (report.num_regions, report.handed_back) == (2, 2)
    given = [row for row in report.layers if row.handed_back]
    assert {row.reason for row in given} == {"with it in XLA the function is 1.25x faster"}
    assert len({row.path for row in given}) == 1 and len(given) == 2
    assert report.microseconds == pytest.approx(0.8e6)
    assert report.outside_microseconds == pytest.approx(0.55e6)
    assert "About 69% of it is spent in XLA" in str(report).replace("\n", " ")
    np.testing.assert_allclose(fast(X), two_kinds(PARAMS, X), atol=1e-5)


@pytest.mark.parametrize("apart", [0.9, 1.1])
def test_a_slow_layer_stays_apart_where_that_pays(races, monkeypatch, apart):
    forged, _ = races
    forged += [(1.0, apart), (min(apart, 1.0), 2.0)]
    in_xla = lambda self, node: 0.0 if node.op.path == "back" else 1e9
    monkeypatch.setattr(court.Court, "alone", in_xla)
    fast = sj.compile(one_region, PARAMS, X)
    wide, back = fast.report().layers
    assert wide.region == 0 and wide.kernel in ("sparse", "dense")
    if apart < 1:
        assert (back.kernel, back.reason) == ("xla", "XLA runs it faster")
        assert fast.report().reasons == {"Linear": "XLA runs it faster"}
        assert fast.report().outside_microseconds == pytest.approx(0.65e6)
    else:
        assert back.region == 0 and not fast.report().xla
    np.testing.assert_allclose(fast(X), one_region(PARAMS, X), atol=1e-5)


def test_kinds_that_there_is_no_time_for_are_said(races, monkeypatch):
    monkeypatch.setattr(court, "CPU_SECONDS", -1)
    races[0].append((1.0, 1.2))
    report = sj.compile(two_kinds, PARAMS, X).report()
    assert report.untried == 2 and "2 kinds of region left" in str(report)


def test_a_clear_case_is_timed_once_and_a_close_one_three_times(races):
    forged, run = races
    forged.append((1.0, 2.0))
    for _ in range(2):
        assert sj.compile(one_region, PARAMS, X).report().num_regions == 1
    assert len(run) == 1
    forged += [(1.0, 0.8), (1.0, 2.0), (0.7, 0.9), (1.0, 1.0)]
    found = [sj.compile(one_region, PARAMS, X[:3]).report().handed_back for _ in range(4)]
    assert found == [1, 0, 0, 0]  # a fast run of the kernels was met
    assert len(run) == 5


def test_other_weights_as_sparse_are_not_timed_again(races):
    races[0].append((1.0, 2.0))
    fast = sj.compile(one_region, PARAMS, X)
    later = fast.with_params(jax.tree.map(lambda leaf: 2 * leaf, PARAMS))
    assert later.report().num_regions == 1 and len(races[1]) == 1


def test_without_tuning_nothing_is_timed(races):
    report = sj.compile(one_region, PARAMS, X, tune=False).report()
    assert np.isnan(report.jit_microseconds) and not races[1]
    assert report.to_dict()["jit_microseconds"] is None


def with_effect(params, x):
    jax.debug.callback(lambda: calls.append(1))
    return one_region(params, x)


calls: list[int] = []


def until_large(params, x):
    """For noise it may never end; the loop holds no layer."""
    return jax.lax.while_loop(lambda x: jnp.abs(x).max() > 1, jnp.cos, one_region(params, x))


@pytest.mark.parametrize("wrapped", [lambda f: f, jax.checkpoint])
def test_a_function_that_may_never_end_is_not_called(races, wrapped):
    sj.compile(wrapped(until_large), PARAMS, X)
    assert not races[1]


def test_a_function_with_effects_is_not_called(races):
    sj.compile(with_effect, PARAMS, X)
    assert not races[1] and not calls


def test_new_shapes_are_timed_inside_of_jit(races):
    forged, _ = races
    forged += [(1.0, 2.0), (3.0, 2.0), (3.0, 2.5)]
    fast = sj.compile(one_region, PARAMS, X)
    np.testing.assert_allclose(jax.jit(fast)(X[:2]), one_region(PARAMS, X[:2]), atol=1e-5)
    assert len(races[1]) == 3


@pytest.mark.parametrize(
    "function, times",
    [
        (one_region, [(3.0, 2.0), (3.0, 2.5)]),  # all of it in XLA
        (two_kinds, [(1.0, 3.0), (1.0, 2.0), (1.0, 0.8)]),  # one kind of region
        (one_region, [(1.0, 0.9), (0.9, 2.0)]),  # a layer apart
    ],
)
def test_what_was_found_holds_for_shapes_of_about_that_size(races, monkeypatch, function, times):
    forged, run = races
    forged += times
    if times[0] == (1.0, 0.9):
        in_xla = lambda self, node: 0.0 if node.op.path == "back" else 1e9
        monkeypatch.setattr(court.Court, "alone", in_xla)
    fast = sj.compile(function, PARAMS, X)
    for rows in (5, 8):
        x = RNG.normal(size=(rows, 24)).astype(np.float32)
        np.testing.assert_allclose(jax.jit(fast)(x), function(PARAMS, x), atol=1e-5)
        calls = lambda x: jax.jit(fast).lower(x).as_text().count("sparsejax")
        assert calls(x) == calls(X)
    assert len(run) == len(times)
    forged += [(1.0, 2.0)] * 4
    fast(RNG.normal(size=(9, 24)).astype(np.float32))  # of another size
    assert len(run) > len(times)


def test_one_function_is_timed_at_a_time(races, monkeypatch):
    running, most = [], []

    def race(*runs):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return [1.0, 2.0][: len(runs)]

    monkeypatch.setattr(court, "race", race)
    fast = [sj.compile(one_region, PARAMS, X, tune=False) for _ in range(2)]
    for each in fast:
        each._options = each._options._replace(tune=True)
    sizes = [np.ones((rows, 24), np.float32) for rows in (1, 2, 3, 9)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: pair[0](pair[1]), itertools.product(fast, sizes)))
    assert max(most) == 1 and len(most) >= 4


def settled(params, x):
    """A loop of which nobody knows when it ends."""
    unlike = lambda c: jnp.abs(c[0] - c[1]).max() > 1e-3
    return jax.lax.while_loop(
        unlike, lambda c: (0.1 * one_region(params, c[0]) + x, c[0]), (x, 0 * x)
    )


@pytest.mark.parametrize("xla, regions", [(0.9, 0), (1.1, 1)])
def test_turns_of_a_loop_that_may_be_endless_are_timed(races, xla, regions):
    forged, run = races
    forged += [(1.0, xla)]
    fast = sj.compile(settled, PARAMS, X)
    report = fast.report()
    assert (report.num_regions, report.handed_back) == (regions, 1 - regions)
    assert len(run) == 1 and not forged
    assert regions or "a turn of its loop is 1.11x faster" in report.layers[0].reason
    assert ("sparsejax" in jax.jit(fast).lower(X).as_text()) == bool(regions)
    np.testing.assert_allclose(fast(X), settled(PARAMS, X), atol=1e-5)
