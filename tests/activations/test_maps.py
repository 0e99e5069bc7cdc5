"""Maps inside of functions, their penalty, quantization and account."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj

acts = sj.activations
X = jnp.array([[1.0, -2.0], [3.0, 0.5]])
W = jnp.array([[1.0, -1.0, 0.5], [0.0, 2.0, -1.0]])


def net(w, x):
    return jax.nn.relu(x @ w).sum()


def test_the_penalty_and_its_gradient_worked_by_hand():
    # x w = [[1, -5, 2.5], [3, -2, 1]]: the positive ones sum to 7.5, over two examples.
    maps = acts.with_maps(net)(W, X)[1]
    np.testing.assert_allclose(acts.l1(maps, 0.2), 0.2 * 7.5 / 2, rtol=1e-6)
    # 0.1 for each positive value: columns 0 and 2 get 0.1 (x_0 + x_1), column 1 nothing.
    gradient = jax.jit(jax.grad(lambda w: acts.l1(acts.with_maps(net)(w, X)[1], 0.2)))(W)
    np.testing.assert_allclose(gradient, [[0.4, 0.0, 0.4], [-0.15, 0.0, -0.15]], atol=1e-6)
    # Where a map is exactly zero, it gets none.
    zero = jax.grad(lambda w: acts.l1(acts.with_maps(net)(w, X)[1], 0.2))(jnp.zeros_like(W))
    assert not zero.any()


def test_strengths_are_by_layer():
    maps = {"a/relu": jnp.ones((2, 3)), "b/relu": jnp.ones((4, 5))}
    assert acts.l1(maps, {"^a": 1.0, "relu": 10.0}) == 3 + 50
    assert acts.l1(maps, {"^b": 2.0}) == 10
    for strengths, kind, words in [
        ({"c": 1.0}, ValueError, "a map for 'c', there are a/relu, b/relu"),
        ({"a": -1.0}, ValueError, "strengths from 0 on"),
        ("1e-6", TypeError, "a strength or a dict"),
    ]:
        with pytest.raises(kind, match=words):
            acts.l1(maps, strengths)
    with pytest.raises(ValueError, match="got none"):
        acts.l1({}, 1.0)


def test_taps_are_the_maps_where_there_are_any():
    def tapped(w, x):
        hidden = acts.tap(jnp.maximum(x @ w, 0), "mine")
        return acts.tap(jax.nn.relu(hidden - 1), "late").sum()

    output, maps = acts.with_maps(tapped)(W, X)
    assert list(maps) == ["mine", "late"] and output == tapped(W, X)
    np.testing.assert_array_equal(maps["mine"], jnp.maximum(X @ W, 0))


def test_turns_of_a_scan_are_maps_of_their_own():
    square = jnp.array([[1.0, -0.5], [0.25, 1.0]])

    def stacked(w, x):
        step = lambda y, _: (jax.nn.relu(y @ w), None)
        return jax.lax.scan(jax.checkpoint(step), x, None, length=2)[0]

    output, maps = jax.jit(acts.with_maps(stacked))(square, X)
    first = jax.nn.relu(X @ square)
    np.testing.assert_allclose(maps["relu/0/0"], first, rtol=1e-6)
    np.testing.assert_allclose(maps["relu/0/1"], output, rtol=1e-6)


def in_while(x):
    return jax.lax.while_loop(lambda y: y.sum() < 0, lambda y: jax.nn.relu(y) + 1, x)


def in_branch(x):
    return jax.lax.cond(x.sum() > 0, jax.nn.relu, lambda y: y, x)


@jax.custom_jvp
def own_derivative(x):
    return acts.tap(x, "inside")


own_derivative.defjvps(lambda t, y, x: t)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (in_while, "'relu' out of `while`"),
        (in_branch, "'relu' out of `cond`"),
        (own_derivative, "'inside' out of `custom_jvp_call`"),
        (lambda x: jnp.maximum(x, 0), "found no tap and no call of relu, relu6"),
    ],
)
def test_maps_that_cannot_be_had_are_named(function, words):
    with pytest.raises(ValueError, match=words):
        acts.with_maps(function)(X)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(acts.sow(self, "hidden", nn.relu(nn.Dense(4)(x))))


def test_linen_and_nnx_give_the_maps_of_their_relus():
    model = Linen()
    variables = model.init(jax.random.key(0), X)
    params = {"params": variables["params"]}
    output, state = model.apply(params, X, mutable=["activation_maps"])
    by_name, maps = acts.with_maps(model.apply)(params, X)
    np.testing.assert_array_equal(state["activation_maps"]["hidden"][0], maps["relu/0"])
    np.testing.assert_array_equal(output, by_name)
    assert acts.l1(state["activation_maps"], 0.5) == acts.l1(maps, 0.5)
    graph, own = nnx.split(nnx.Linear(2, 4, rngs=nnx.Rngs(0)))
    hidden = acts.with_maps(lambda s, x: nnx.relu(nnx.merge(graph, s)(x)))(own, X)
    np.testing.assert_array_equal(hidden[1]["relu/0"], hidden[0])
    with pytest.raises(TypeError, match="sow needs a linen module, got Linear"):
        acts.sow(nnx.Linear(2, 4, rngs=nnx.Rngs(0)), "x", X)


@pytest.mark.parametrize("bits", [1, 2, 7, 8, 9, 16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_quantized_maps_come_back_within_half_a_step(bits, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.exponential(3.0, (40, 5)) * (rng.random((40, 5)) > 0.5), dtype)
    quantized = acts.quantize(x, bits=bits)
    levels, step = np.asarray(quantized.levels), float(quantized.step)
    exact = np.asarray(x, np.float64)
    error = np.abs(np.asarray(acts.dequantize(quantized), np.float64) - exact)
    assert (error <= step / 2 + 4 * np.finfo(np.float32).eps * exact.max()).all()
    assert levels.max() == 2**bits - 1 and levels.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert not levels[exact == 0].any()
    clipped = acts.quantize(x, bits=bits, maximum=exact.max() / 2).levels
    assert (np.asarray(clipped)[exact >= exact.max() / 2] == 2**bits - 1).all()


def test_empty_zero_and_tiny_maps_are_zero():
    for x in (jnp.zeros((0, 3)), jnp.zeros(4), jnp.full(3, 1e-38), -jnp.zeros(2)):
        quantized = acts.quantize(x, bits=8)
        assert not quantized.levels.any() and not acts.dequantize(quantized).any()


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: acts.quantize(-X), ValueError, "finite values from 0 on"),
        (lambda: acts.quantize(jnp.array([jnp.inf])), ValueError, "got inf to inf"),
        (lambda: acts.quantize(np.array([np.nan])), ValueError, "got nan to nan"),
        (lambda: acts.quantize(np.array([1])), TypeError, "maps of floats, got int"),
        (lambda: acts.quantize(W * W, bits=17), ValueError, "bits from 1 to 16, got 17"),
        (lambda: acts.quantize(W * W, maximum=-1.0), ValueError, "finite maximum from 0 on"),
        (lambda: acts.density({}), ValueError, "density needs maps"),
        (lambda: jax.jit(acts.density)({"a": X * X}), TypeError, "density needs concrete maps"),
    ],
)
def test_what_is_no_map_is_said(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_the_account_adds_up_and_fits():
    rng = np.random.default_rng(1)
    maps = {
        f"stages/{i}/a_block_of_some_length/activation": jnp.asarray(
            np.maximum(rng.normal(size=(3, 40)) - i, 0), jnp.float32
        )
        for i in range(3)
    }
    found = acts.density(maps, bits=12)
    for own, array in zip(found.maps, maps.values(), strict=True):
        levels = np.asarray(acts.quantize(array, bits=12).levels)
        assert own.nonzeros == int((array > 0).sum()) and own.bytes_before == 4 * 120
        k = acts.best_k(acts.histogram(levels))
        assert own.bits["SEG"] == acts.code_lengths(levels, k=k).sum()
        assert own.bits["ZVC"] == 120 + 12 * np.count_nonzero(levels)
    assert found.total.size == 360
    assert found.total.bits["SEG"] == sum(own.bits["SEG"] for own in found.maps)
    assert found.to_dict()["total"]["density"] == found.total.density
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80 and any("total" in line for line in lines)
    assert "<table>" in found._repr_html_()
    own = str(acts.density(maps, coders=[acts.huffman()]))
    assert "after = Huffman" in " ".join(own.split())
