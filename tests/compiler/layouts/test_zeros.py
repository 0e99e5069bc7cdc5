"""Products that skip the zeros of what they multiply: when they are tried, and what they give."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler import court
from sparsejax.compiler.engine.program import read_steps
from sparsejax.compiler.layouts import tune
from sparsejax.patterns.layout import COLUMNS

RNG = np.random.default_rng(0)
SIZES = {"1x1": (1, 1, 40), "3x3": (3, 1, 17), "3x3 by two": (3, 2, 33), "many rows": (1, 1, 300)}


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def conv(x, kernel, stride=1):
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=order)


def net(params, x, stride=1):
    """A layer behind a ReLU that lets a third through, and one behind what has no zeros."""
    hidden = jax.nn.relu(conv(x, params["first"]) - 0.5)
    second = conv(hidden, params["second"], stride) + params["bias"]
    return conv(jnp.tanh(second + second), params["third"])


def of_size(size, outputs):
    first = normal(1, 1, 20, 30) / np.sqrt(20)
    second = normal(size, size, 30, outputs) / np.sqrt(30 * size * size)
    third = normal(1, 1, outputs, 8) / np.sqrt(outputs)
    return {"first": first, "second": second, "bias": normal(outputs), "third": third}


IMAGES = normal(2, 9, 9, 20)
PARAMS = of_size(1, 40)


@pytest.fixture(autouse=True)
def given(monkeypatch, tmp_path):
    """Skipping is the faster wherever it is tried; what was run on is noted."""
    monkeypatch.setenv("SPARSEJAX_CACHE", str(tmp_path / "times.json"))
    operands = []

    def profile(program, **options):
        operands.append(options["operands"])
        _, steps = read_steps(program.words)
        return [1e-6 if step.layout.storage == COLUMNS else 1e-5 for step in steps]

    monkeypatch.setattr(tune, "profile", profile)
    monkeypatch.setattr(court, "race", lambda *runs: [1e-6, 1.0][: len(runs)])
    return operands


def skipping(fast):
    return [row.path for row in fast.report().layers if row.pattern == "zeros skipped"]


def compiled(fn, params=PARAMS, x=IMAGES, **options):
    return sj.compile(fn, params, x, skip_zeros=True, **options)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_same_function(size):
    side, stride, outputs = SIZES[size]
    fn, params = partial(net, stride=stride), of_size(side, outputs)
    fast = compiled(fn, params)
    assert skipping(fast) == ["second"]
    np.testing.assert_allclose(jax.jit(fast)(IMAGES), fn(params, IMAGES), atol=3e-6)
    more = normal(3, 9, 9, 20)  # other images, another batch
    np.testing.assert_allclose(fast(more), fn(params, more), atol=3e-6)
    np.testing.assert_allclose(jax.vmap(fast)(more[:, None]), fn(params, more)[:, None], atol=3e-6)
    own, others = (jax.grad(lambda x, f=f: f(x).sum())(IMAGES) for f in (fast, partial(fn, params)))
    np.testing.assert_allclose(own, others, atol=1e-4)


def test_what_is_no_number_stays_so():
    images = IMAGES.copy()
    images[0, 2, 3] = np.nan
    got, wanted = compiled(net)(images), net(PARAMS, images)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    assert np.isnan(wanted).any() and not np.isnan(wanted).all()


def test_the_example_is_what_is_measured(given):
    fast = compiled(net)
    assert skipping(fast) == ["second"]
    assert given and all(len(operands) == 1 for operands in given)
    np.testing.assert_array_equal(given[0][0], IMAGES[0].ravel())
    (row,) = (row for row in fast.report().layers if row.path.endswith("second"))
    density = np.count_nonzero(jax.nn.relu(conv(IMAGES, PARAMS["first"]) - 0.5)) / (2 * 81 * 30)
    assert row.reason == f"no zeros but those of its input, {1 - round(density, 2):.0%}"


def with_zero_weights(params):
    return params | {"second": params["second"] * (RNG.random((30, 40)) < 0.5)}


def test_weights_that_are_zero_meet_nothing():
    """A layer with some is stored as all others are: there, infinity times zero is nothing."""
    assert skipping(compiled(net, with_zero_weights(PARAMS))) == []


def test_without_being_asked_nothing_is_skipped():
    assert skipping(sj.compile(net, PARAMS, IMAGES)) == []


def test_where_nothing_is_known_nothing_is_skipped():
    fast, other = compiled(net), normal(2, 8, 9, 20)
    np.testing.assert_allclose(fast(other), net(PARAMS, other), atol=3e-6)
    made = list(fast._versions.values())[-1]
    assert all(row.pattern != "zeros skipped" for row in made.report.layers)


@pytest.mark.parametrize("rows", [1, 3, 16, 64])
def test_rows_share_it_with_as_few_or_many(rows, given):
    """More than 16 rows are packed apart from fewer; there, no zeros were counted."""
    dense = lambda params, x: jax.nn.relu(x @ params["a"] - 1) @ params["b"]
    params = {"a": normal(24, 32) / 5, "b": normal(32, 40) / 5}
    fast = compiled(dense, params, normal(rows, 24))
    assert skipping(fast) == ["b"]
    assert given[0][0].size == rows * 24
    for number in (1, 2, 5, 16, 17, 40):
        x = normal(number, 24)
        np.testing.assert_allclose(fast(x), dense(params, x), atol=3e-6)
        made = list(fast._versions.values())[-1]
        skips = any(row.pattern == "zeros skipped" for row in made.report.layers)
        assert skips == ((number <= 16) == (rows <= 16))


def test_few_pixels():
    for side in (1, 2, 3):
        images = normal(2, side, side, 20)
        fast = compiled(net, x=images)
        assert skipping(fast) == ["second"]
        np.testing.assert_allclose(fast(images), net(PARAMS, images), atol=3e-6)


def test_other_weights_and_another_process():
    fast = compiled(net)
    twice = jax.tree.map(lambda leaf: leaf * 1.5, PARAMS)
    later = fast.with_params(twice)
    assert skipping(later) == ["second"]
    np.testing.assert_allclose(later(IMAGES), net(twice, IMAGES), atol=1e-5)
    assert skipping(pickle.loads(pickle.dumps(fast))) == ["second"]


def test_a_file_is_read_by_those_who_cannot_skip(tmp_path):
    fast = compiled(net)
    sj.save(fast, tmp_path / "net.sjx")
    assert b"columns" not in (tmp_path / "net.sjx").read_bytes()
    np.testing.assert_allclose(sj.load(tmp_path / "net.sjx")(IMAGES), fast(IMAGES), atol=3e-6)


@pytest.mark.parametrize("wrong", ["shape", "no measurement"])
def test_what_is_missing_is_said(wrong):
    shape = jax.ShapeDtypeStruct(IMAGES.shape, np.float32)
    if wrong == "shape":
        with pytest.raises(ValueError, match="needs example arrays with skip_zeros=True"):
            compiled(net, x=shape)
    else:
        with pytest.raises(ValueError, match="needs tune=True with skip_zeros=True"):
            compiled(net, tune=False)
