"""Images and lines put together of parts of one, powers, and other arithmetic between layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj
from tests.compiler.graphs import assert_close, regions, rewritten

RNG = np.random.default_rng(0)
BATCH, SIDE, CHANNELS = 2, 9, 5


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


FORMS = {
    "NHWC": ("NHWC", "HWIO", "NHWC"),
    "NCHW": ("NCHW", "HWIO", "NCHW"),
    "NWC": ("NWC", "WIO", "NWC"),
}
SLOPES = np.array([0.25, -0.5, 0, 2, 1], np.float32)
P = {form: [drawn(*(3,) * (len(form) - 2), CHANNELS, CHANNELS) / 7 for _ in "ab"] for form in FORMS}


def axes_of(form):
    return tuple(form.index(axis) for axis in "HW" if axis in form)


def channels_of(axes):
    return 1 if 1 not in axes else len(axes) + 1


def of_channels(numbers, axes):
    return numbers.reshape(-1, *(1,) * len(axes)) if channels_of(axes) == 1 else numbers


def between(form, middle):
    """Two convolutions, and something between them."""
    convolved = lambda x, w: lax.conv_general_dilated(
        x, w, (1,) * (len(form) - 2), "SAME", dimension_numbers=FORMS[form]
    )

    def function(p, x):
        return convolved(middle(jax.nn.relu(convolved(x, p[0])), axes_of(form)), p[1])

    return function


def example(form):
    shape = {"N": BATCH, "H": SIDE, "W": SIDE + 2, "C": CHANNELS}
    return drawn(*(shape[axis] for axis in form))


def padded(mode, before, behind):
    def function(x, axes):
        pads = [(before, behind) if axis in axes else (0, 0) for axis in range(x.ndim)]
        return jnp.pad(x, pads, mode=mode)

    return function


def repeated(x, axes):
    for axis in axes:
        x = jnp.repeat(x, 2, axis)
    return x


def stacked(x, axes):
    """Each row twice, as an upsampling is spelled, too."""
    shape = [2 * n if axis == axes[0] else n for axis, n in enumerate(x.shape)]
    return jnp.stack([x, x], axes[0] + 1).reshape(shape)


MOVES = {
    **{f"pad {mode}": padded(mode, 2, 1) for mode in ("edge", "reflect", "symmetric", "wrap")},
    "wide reflection": padded("reflect", 8, 8),
    "roll": lambda x, axes: jnp.roll(x, 3, axes),
    "roll back": lambda x, axes: jnp.roll(x, -1, axes[-1]),
    "repeat": repeated,
    "stack": stacked,
    "halves change places": lambda x, axes: jnp.concatenate(
        jnp.split(x, [4], axes[0])[::-1], axes[0]
    ),
    "channels change places": lambda x, axes: jnp.concatenate(
        jnp.split(x, [2], channels_of(axes))[::-1], channels_of(axes)
    ),
    "mirrored beside": lambda x, axes: jnp.concatenate([x, jnp.flip(x, axes[0])], axes[0]),
}
ARITHMETIC = {
    "square": lambda x, _: jnp.square(x),
    "cube": lambda x, _: x**3,
    "fourth power": lambda x, _: x**4,
    "soft sign": lambda x, _: jax.nn.soft_sign(x),
    "quotient": lambda x, _: x / (1 + x * x),
    # Of two pixels, of which one alone may be NaN.
    "the less": lambda x, axes: jnp.minimum(jnp.roll(x, 1, axes[0]), x - 0.5),
    "the less, turned": lambda x, axes: jnp.minimum(x - 0.5, jnp.roll(x, 1, axes[0])),
    "of the mean": lambda x, axes: x / (1 + x.mean(axes, keepdims=True)),
    "slopes": lambda x, axes: jnp.where(x > 0, x, x * of_channels(SLOPES, axes)),
    "slopes below": lambda x, axes: jnp.where(x >= 0, x, of_channels(SLOPES, axes) * x),
    "relu squared": lambda x, _: jnp.square(jax.nn.relu(x)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MOVES | ARITHMETIC)
def test_two_convolutions_and_what_is_between_are_one_region(form, name):
    function, x = between(form, (MOVES | ARITHMETIC)[name]), example(form)
    graph = rewritten(function, P[form], x)
    assert len(regions(graph)) == 1
    fast = sj.compile(function, P[form], x, tune=False)
    assert_close(fast(x), jax.jit(function)(P[form], x))
    many = jnp.stack([x, 2 * x, -x])
    plain = lambda x: function(P[form], x)
    assert_close(jax.vmap(fast)(many), jax.vmap(plain)(many))
    direction = drawn(*fast(x).shape)
    slope = lambda f: jax.grad(lambda x: jnp.vdot(direction, f(x)))(x)
    assert_close(slope(fast), slope(plain))


HALVES = {
    "halves": lambda x, axes: jnp.concatenate(jnp.split(x, 2, -1)[::-1], -1),
    "neighbours": lambda x, axes: x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape),
}


@pytest.mark.parametrize("name", HALVES)
def test_channels_that_change_places_do_not_turn(name):
    p, x = [drawn(3, 3, 6, 6) for _ in "ab"], drawn(2, 8, 8, 6)
    x[0, 3, 3, 0] = np.inf
    function = between("NHWC", HALVES[name])
    fast = sj.compile(function, p, x, tune=False)
    assert fast.report().num_regions == 1
    got, expected = fast(x), jax.jit(function)(p, x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    assert_close(
        np.nan_to_num(got, posinf=0, neginf=0), np.nan_to_num(expected, posinf=0, neginf=0)
    )


@pytest.mark.parametrize("name", ARITHMETIC)
def test_nan_and_infinity_are_as_in_xla(name):
    x = example("NHWC")
    x[0, 0, 0, 0], x[1, 2, 3, 1], x[1, 8, 10, 4] = np.nan, np.inf, -np.inf
    function = between("NHWC", ARITHMETIC[name])
    fast = sj.compile(function, P["NHWC"], x, tune=False)
    got, expected = fast(x), jax.jit(function)(P["NHWC"], x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(expected))


@pytest.mark.parametrize("form", ["NHWC", "NCHW"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_slopes_may_lie_along_any_axis(form, axis):
    x = example(form)
    numbers = np.linspace(-0.5, 1, x.shape[axis], dtype=np.float32)
    slopes = numbers.reshape(-1, *(1,) * (3 - axis))
    function = between(form, lambda x, _: jnp.where(x > 0, x, x * slopes))
    fast = sj.compile(function, P[form], x, tune=False)
    assert_close(fast(x), jax.jit(function)(P[form], x))


def rows(middle):
    return lambda p, x: jax.nn.relu(middle(jax.nn.relu(x @ p[0])) @ p[1])


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x[:, ::-1],
        lambda x: x[:, 1:-3],
        lambda x: x[:, ::2],
        lambda x: jnp.pad(x, ((0, 0), (2, 0), (0, 0))),
        lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1],
    ],
)
def test_moved_rows_are_in_the_region_of_the_layers_around_them(middle):
    p, x = [drawn(CHANNELS, CHANNELS) for _ in "ab"], drawn(BATCH, 40, CHANNELS)
    graph = rewritten(rows(middle), p, x)
    assert len(regions(graph)) == 1
    fast = sj.compile(rows(middle), p, x, tune=False)
    assert_close(fast(x), rows(middle)(p, x))


def conditioned(p, x, c):
    """As in a DiT: each sequence has a scale, a shift and a gate of its own."""
    scale, shift, gate = jnp.split(jax.nn.silu(c) @ p["all"], 3, -1)
    y = jax.nn.gelu((x * (1 + scale[:, None]) + shift[:, None]) @ p["a"])
    return x + gate[:, None] * (y @ p["b"])


def of_its_mean(p, x, c):
    y = x @ p["a"]
    return (y * jax.nn.sigmoid(y.mean(1, keepdims=True) @ p["b"])) @ p["a"]


PER_SEQUENCE = {
    "conditioned": conditioned,
    "of its mean": of_its_mean,
    "less": lambda p, x, c: (x @ p["a"] - (c @ p["b"])[:, None]) @ p["b"],
    "from": lambda p, x, c: ((c @ p["b"])[:, None] - x @ p["a"]) @ p["b"],
    "quotient": lambda p, x, c: (x @ p["a"] / (2 + jnp.tanh(c @ p["b"]))[:, None]) @ p["b"],
    "at most": lambda p, x, c: jnp.minimum((c @ p["b"])[:, None], x @ p["a"]) @ p["b"],
}


@pytest.mark.parametrize("name", PER_SEQUENCE)
def test_numbers_of_each_sequence_meet_its_rows(name):
    p = {"a": drawn(6, 6) / 2, "b": drawn(6, 6) / 2, "all": drawn(6, 18) / 2}
    x, c, function = drawn(3, 40, 6), drawn(3, 6), PER_SEQUENCE[name]
    fast = sj.compile(function, p, x, c, tune=False)
    if name != "from":  # a number less a row is no step
        assert fast.report().num_regions == 1
    assert_close(fast(x, c), jax.jit(function)(p, x, c))
    assert_close(fast(x[:1], c[:1]), jax.jit(function)(p, x[:1], c[:1]))
    plain = lambda x, c: function(p, x, c)
    direction = drawn(*x.shape)
    slope = lambda f: jax.grad(lambda *inputs: jnp.vdot(direction, f(*inputs)), (0, 1))(x, c)
    for one, other in zip(slope(fast), slope(plain), strict=True):
        assert_close(one, other)
