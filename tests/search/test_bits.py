"""HAQ: bits within a budget, taken from the back; and functions that run on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sparsejax as sj


def layer(path, num_weights, inputs=4, groups=1):
    return sj.search.WeightLayer(
        path, inputs, 4, 9, 1, groups, True, num_weights, 100 * num_weights, 50, 60
    )


LAYERS = [layer("a", 8), layer("b", 8), layer("c", 16, groups=4), layer("d", 8)]


def bits_of(limit, actions, costs=None):
    own = sj.search.bit_search(LAYERS, costs or sj.search.weight_bytes(LAYERS), limit=limit)
    bits = own.bits(dict(zip(own.space, actions, strict=True)))
    assert bits["a"] == bits["d"] == (8, 8)
    return [*bits["b"], *bits["c"]]


@pytest.mark.parametrize(
    ("action", "bits"),
    [(0.0, 2), (0.142, 2), (0.144, 3), (0.5, 5), (0.857, 7), (0.86, 8), (1.0, 8)],
)
def test_each_number_of_bits_has_an_equal_part(action, bits):
    assert bits_of(40, [action] * 4) == [bits] * 4


@pytest.mark.parametrize(
    ("limit", "bits"),
    [
        (40, [8, 8, 8, 8]),  # bytes: 8 + 8 + 16 + 8
        (39, [8, 8, 7, 7]),  # inputs cost no bytes, but lose a bit on the way
        (37.5, [7, 7, 7, 7]),  # 38, then 37
        (22, [2, 2, 2, 2]),
    ],
)
def test_bits_are_taken_from_the_back(limit, bits):
    assert bits_of(limit, [1.0] * 4) == bits


def test_a_layer_at_its_fewest_bits_is_passed_over():
    assert bits_of(36, [1.0, 1.0, 1.0, 0.0]) == [7, 7, 6, 2]
    assert bits_of(22, [0.0, 1.0, 0.0, 0.0]) == [2, 8, 2, 2]


def test_a_limit_below_the_fewest_bits_is_refused():
    with pytest.raises(ValueError, match=r"got 21; at 2 bits they cost 22"):
        bits_of(21, [0.0] * 4)


def test_states_of_bits_by_hand():
    own = sj.search.bit_search(LAYERS, sj.search.weight_bytes(LAYERS), limit=40)
    first = [0, 0, 0, 0, 0, 0, 0, 0]
    second = [1, 0, 0, 0, 0, 1, 0, 1]
    wanted = [[*first, 1, 0], [*first, 5 / 8, 1], [*second, 2 / 8, 0], [*second, 1, 1]]
    np.testing.assert_allclose(own.observe([0.5, 0.0, 1.0]), wanted)


def test_a_table_of_milliseconds_is_a_cost():
    device = sj.search.example_fpga()
    table = device.bit_table(LAYERS)
    assert table.source == "modelled by example_fpga"
    bits = {"a": (8, 8), "b": (3, 4), "c": (2, 8), "d": (8, 8)}
    wanted = sum(
        device.layer(own, weight_bits=bits[own.path][0], input_bits=bits[own.path][1]).seconds
        for own in LAYERS
    )
    assert table(bits) == pytest.approx(1e3 * wanted)
    full = table(dict.fromkeys("abcd", (8, 8)))
    b, c = bits_of(0.8 * full, [1.0] * 4, table)[::2]
    assert table({"a": (8, 8), "b": (b, b), "c": (c, c), "d": (8, 8)}) <= 0.8 * full


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), name="first")(x))
        return nn.Dense(3, use_bias=False, name="head")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def net():
    model, x = Net(), np.random.default_rng(0).normal(size=(4, 5, 5, 2)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), x)
    return model.apply, params, x, sj.search.layer_grids(model.apply, params, x)


def on_grid(values, step, low, high):
    return np.clip(np.round(np.asarray(values, np.float64) / step), low, high) * step


def test_layers_run_on_rounded_weights_and_inputs(net):
    apply, params, x, own = net
    run = jax.jit(sj.search.rounded(apply))
    assert own.signed == {"params/first/kernel"}
    for bits in ((2, 3), (8, 8)):
        grids = own.at({"params/first/kernel": bits, "params/head/kernel": bits})
        first, head = grids["params/first/kernel"], grids["params/head/kernel"]
        assert list(first[1, 1:]) == [1 - 2 ** (bits[1] - 1), 2 ** (bits[1] - 1) - 1]
        assert list(head[1, 1:]) == [0, 2 ** bits[1] - 1]
        values = params["params"]
        kernel = on_grid(values["first"]["kernel"], *first[0])
        inner = jax.lax.conv_general_dilated(
            on_grid(x, *first[1]).astype(np.float32),
            kernel.astype(np.float32),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        pooled = np.maximum(inner + values["first"]["bias"], 0).mean((1, 2))
        wanted = on_grid(pooled, *head[1]) @ on_grid(values["head"]["kernel"], *head[0])
        np.testing.assert_allclose(run(params, grids, x), wanted, rtol=1e-4, atol=1e-5)
    assert run._cache_size() == 1


def test_layers_without_bits_stay_as_they_are_and_more_bits_are_nearer(net):
    apply, params, x, own = net
    run, whole = jax.jit(sj.search.rounded(apply)), jax.jit(apply)(params, x)
    np.testing.assert_array_equal(run(params, own.at({}), x), whole)
    paths = list(own.weight_steps)
    errors = [
        float(jnp.abs(run(params, own.at(dict.fromkeys(paths, (b, b))), x) - whole).max())
        for b in (2, 4, 8)
    ]
    assert errors[0] > errors[1] > errors[2] > 0


def test_the_slope_of_rounding_is_one(net):
    apply, params, x, own = net
    run = sj.search.rounded(apply)
    grids = own.at({"params/head/kernel": (2, 8)})
    grad = jax.jit(jax.grad(lambda p: run(p, grids, x).sum()))(params)
    # The sum's slope in a weight of the head is its input, rounded, for each of 3 outputs.
    pooled = grad["params"]["head"]["kernel"]
    np.testing.assert_array_equal(pooled, np.broadcast_to(pooled[:, :1], pooled.shape))
    assert np.abs(grad["params"]["first"]["kernel"]).max() > 0
