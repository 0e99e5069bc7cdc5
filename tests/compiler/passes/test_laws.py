"""Laws of arithmetic: what they save, and that floats do not tell the difference unasked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import sparsejax as sj
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.passes.laws import LAWS, apply_laws
from sparsejax.compiler.passes.trace import trace
from tests.compiler.graphs import kinds

X, Y, Z = np.random.default_rng(0).uniform(0.5, 2, (3, 4, 6)).astype(np.float32)
COLUMN = Y[:, :1]
NUMBERS = np.arange(24, dtype=np.int32).reshape(4, 6) - 9

# The law -> a function that it rewrites for real numbers, its inputs, and the equations left.
CASES = {
    "|A| |B| = |A B|": (lambda x, y: abs(x) * abs(y), (X, -Y), "mul abs"),
    "|A| B |C| = |A C| B": (lambda x, y, z: abs(x) * y * abs(z), (-X, Y, Z), "mul abs mul"),
    "1/A 1/(A B) = (1/A)^2 1/B": (
        lambda a, b: (1 / a) * (1 / (a * b)),
        (COLUMN, X),
        "integer_pow square integer_pow mul",
    ),
    "(A sqrt B)(sqrt B C) = A C B": (
        lambda a, b, c: (lambda root: (a * root) * (root * c))(jnp.sqrt(b)),
        (X, Y, Z),
        "mul mul",
    ),
    "(A B)(B C) = A C B^2": (lambda a, b, c: (a * b) * (b * c), (X, COLUMN, Z), "mul square mul"),
    "(A B) C = A (B C)": (lambda a, b, c: (a * b) * c, (X, COLUMN, COLUMN + 1), "mul mul"),
    "(A + B) + C = A + (B + C)": (lambda a: (a + Y) + Z, (X,), "add"),
    "A C + A B = A (C + B)": (lambda a, b, c: b * a + a * c, (X, Y, Z), "add mul"),
    "A + A B = A (B + 1)": (lambda a, b: a + b * a, (X, COLUMN), "add mul"),
    "A^2 - A C = A (A - C)": (lambda a, c: a * a - c * a, (X, Y), "sub mul"),
    "sum(A << s) = sum(A) << s": (lambda a: (a << 3).sum(1), (NUMBERS,), "reduce_sum shift_left"),
    "prod(exp A) = exp(sum A)": (lambda a: jnp.exp(a).prod(1), (X,), "reduce_sum exp"),
}


def graph_of(fn, *inputs):
    return trace(lambda _, *inputs: fn(*inputs), {}, inputs)[0]


def run(graph, *inputs):
    with np.errstate(all="ignore"):
        return np.asarray(interpreter(graph.nodes, graph.inputs, graph.outputs)(*inputs)[0])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_each_law_saves_operations_and_keeps_the_numbers(law):
    fn, inputs, left = CASES[law.name]
    graph = graph_of(fn, *inputs)
    before = run(graph, *inputs)
    assert apply_laws(graph, real=True) == {law.name: 1}
    assert kinds(graph) == left.split()
    np.testing.assert_allclose(run(graph, *inputs), before, rtol=1e-5)


UNBOUNDED = [name for name in CASES if name not in ("|A| |B| = |A B|", "sum(A << s) = sum(A) << s")]


@pytest.mark.parametrize("name", UNBOUNDED)
def test_laws_of_real_numbers_wait_for_leave(name):
    fn, inputs, _ = CASES[name]
    graph = graph_of(fn, *inputs)
    before = kinds(graph)
    assert not apply_laws(graph) and kinds(graph) == before


def gate(x):
    return jax.nn.sigmoid(x)


# What bounds prove: no infinity, no NaN, no cancelled sum.
PROVEN = {
    "A + A B = A (B + 1)": lambda x, y: (lambda a: a + a * gate(y[:, :1]))(jnp.tanh(x)),
    "A C + A B = A (C + B)": lambda x, y: (lambda a: a * gate(y) + a * gate(-y))(jnp.sin(x)),
    "prod(exp A) = exp(sum A)": lambda x, y: jnp.exp(jnp.tanh(x)).prod(1),
    "(A B) C = A (B C)": lambda x, y: (gate(x) * jnp.tanh(y[:, :1])) * jnp.cos(y[:, 1:2]),
    "A^2 - A C = A (A - C)": lambda x, y: (lambda a: a * a - a * -gate(y))(jnp.exp(jnp.tanh(x))),
    "|A| |B| = |A B|": lambda x, y: abs(x) * abs(y),
}
# The same without one of these.
NOT_PROVEN = [
    lambda x, y: x + x * gate(y[:, :1]),  # inf * 0
    lambda x, y: (lambda a: a + a * jnp.tanh(y[:, :1]))(jnp.tanh(x)),  # 0.0 for -0.0
    lambda x, y: (lambda a: a * gate(y) + a * -gate(-y))(jnp.tanh(x)),
    lambda x, y: (lambda a: a * 3e38 + a * (2e38 * gate(y)))(gate(x)),  # 5e38
    lambda x, y: jnp.exp(20 * jnp.tanh(x)).prod(1),  # e^120
    lambda x, y: (lambda a: a * gate(y) + a * jnp.sqrt(y))(jnp.tanh(x)),
    lambda x, y: (lambda a: a * a - a * gate(y))(gate(x)),
]
SPECIAL = np.array(
    [0, -0.0, 1, -1, 1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan, -2, 90], np.float32
)


@pytest.mark.parametrize("name", PROVEN)
def test_what_is_rewritten_unasked_is_the_same_for_all_floats(name):
    pairs = np.stack(np.meshgrid(SPECIAL, SPECIAL), 2).reshape(-1, 2)
    x, y = pairs[:, :1] * np.ones((1, 3), np.float32), np.roll(pairs, 1, 1)
    y = np.concatenate([y, y[:, :1]], 1)
    graph = graph_of(PROVEN[name], x, y)
    before = run(graph, x, y)
    assert apply_laws(graph) == {name: 1}
    after = run(graph, x, y)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-38)
    same = np.isnan(before) | (np.signbit(before) == np.signbit(after))
    assert same.all()


@pytest.mark.parametrize("fn", NOT_PROVEN)
def test_what_bounds_do_not_prove_stays(fn):
    assert not apply_laws(graph_of(fn, X, Y))
    assert apply_laws(graph_of(fn, X, Y), real=True)


def test_integers_wrap_alike():
    huge = np.array([[2**30, -(2**31), 7], [2**31 - 1, 5, 2**30]], np.int32)
    graph = graph_of(lambda a, b: a * b + a * (b + 1), huge, huge[::-1])
    before = run(graph, huge, huge[::-1])
    assert apply_laws(graph) and np.array_equal(run(graph, huge, huge[::-1]), before)
    assert not apply_laws(graph_of(lambda a, b: abs(a) * abs(b), huge, huge), real=True)


def test_what_others_read_is_not_computed_twice():
    shared = lambda a, b: (lambda y: (a + y, y))(a * b)
    assert not apply_laws(graph_of(shared, X, Y), real=True)


def test_the_law_that_saves_most_comes_first():
    wide, narrow = (lambda a, b: a * b + a), (lambda a, b: (a * b[:, :1]) * b[:, 1:2])
    graph = graph_of(lambda a, b: narrow(wide(a, b), b), X, Y)
    # a + a b saves nothing: one sum, one product as before. The narrow product saves 24 - 4.
    assert apply_laws(graph, real=True) == {"(A B) C = A (B C)": 1}


def test_laws_reach_into_loops():
    def fn(x):
        turn = lambda c, _: (jnp.dot(c + c * c[:1, :1], Y.T[:, :4]) @ Z, None)
        return lax.scan(turn, x, None, length=99)[0]

    assert apply_laws(graph_of(fn, X), real=True) == {"A + A B = A (B + 1)": 1}


def test_compile_rewrites_with_leave_and_says_so():
    weights = {"kernel": X}
    fn = lambda p, x: (lambda y: y + y * y[:, :1])(x @ p["kernel"])
    exact = sj.compile(fn, weights, Y[:, :4], tune=False)
    real = sj.compile(fn, weights, Y[:, :4], tune=False, real_arithmetic=True)
    assert exact.report().laws == {} and "Rewritten" not in str(exact.report())
    assert real.report().laws == {"A + A B = A (B + 1)": 1}
    assert "Rewritten: A + A B = A (B + 1) (1x)." in str(real.report())
    np.testing.assert_allclose(real(Y[:, :4]), exact(Y[:, :4]), rtol=1e-5)
    assert real.with_params(weights).report().laws == real.report().laws
