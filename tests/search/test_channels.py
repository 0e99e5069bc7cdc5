"""AMC: widths within a budget, whose costs and outputs are those of the network that is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen

# As released with the paper, input channels of each layer but the first.
HALF_THE_FLOPS = (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752)
HALF_THE_TIME = (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680)


@pytest.fixture(scope="module")
def mobilenet():
    model, image = MobileNetV1Linen(), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return model.apply, jax.eval_shape(model.init, jax.random.key(0), image), image


def test_the_released_policies_have_the_multiply_adds_of_the_paper(mobilenet):
    costs = sj.search.width_costs(*mobilenet)
    names = [group.name for group in costs.groups.prunable]
    count = lambda widths: costs.multiply_adds(dict(zip(names, widths, strict=True)))
    assert costs.multiply_adds({}) == 568_740_352
    assert count(HALF_THE_FLOPS) == 293_870_000
    assert count(HALF_THE_TIME) == 273_976_912


def test_no_wider_choice_fits_the_budget(mobilenet):
    own = sj.search.channel_search(*mobilenet, limit=0.5)
    narrow = {name: options[0] for name, options in own.options.items()}
    rng = np.random.default_rng(0)
    for _ in range(3):
        choice = {name: rng.uniform(*interval) for name, interval in own.space.items()}
        widths, later = own.widths(choice), dict(narrow)
        assert own.costs(widths) <= own.limit
        for group in own.groups:
            options, width = own.options[group.name], widths[group.name]
            asked = min(option for option in options if option >= choice[group.name] * group.size)
            later[group.name] = width
            if width < asked:
                wider = options[options.index(width) + 1]
                assert own.costs({**later, group.name: wider}) > own.limit


@pytest.fixture(scope="module")
def chain():
    """Layers of 4, 10, 10 and 2 channels: 4 a + a b + 2 b multiply-adds, 160 of the whole."""
    rng = np.random.default_rng(0)
    sizes = {"a": (4, 10), "b": (10, 10), "c": (10, 2)}
    params = {name: {"kernel": rng.normal(size=size)} for name, size in sizes.items()}

    def apply(params, x):
        for name in "abc":
            x = jax.nn.relu(x) @ params[name]["kernel"]
        return x

    return apply, params, np.ones((1, 4))


@pytest.mark.parametrize(
    ("actions", "widths"),
    [
        ((1.0, 1.0), (10, 3)),  # 40 + 12 b <= 80
        ((0.5, 1.0), (5, 8)),  # 20 + 7 b <= 80
        ((0.41, 0.3), (5, 3)),  # rounded up where there is room
        ((0.2, 0.2), (2, 2)),
    ],
)
def test_the_action_wall_by_hand(chain, actions, widths):
    own = sj.search.channel_search(*chain, limit=0.5, multiple=1)
    assert list(own.widths(dict(zip(own.space, actions, strict=True))).values()) == list(widths)


def test_states_by_hand(chain):
    own = sj.search.channel_search(*chain, limit=0.5, multiple=1)
    # place, dense, inputs, outputs, window, stride, weights; gone, still to come, kept before
    first = [0, 0, 0, 1, 0, 0, 1, 0.0, 20 / 120, 1.0]
    second = [1, 0, 0, 0, 0, 0, 0, 1 - (20 + 50 + 20) / 160, 0.0, 0.5]
    np.testing.assert_allclose(own.observe([]), [first])
    np.testing.assert_allclose(own.observe([0.5]), [first, second], rtol=1e-6)
    np.testing.assert_allclose(own.observe([0.5, 0.9]), [first, second], rtol=1e-6)


def test_limits_that_cannot_be_met_are_refused(chain):
    with pytest.raises(ValueError, match=r"at their narrowest they leave 0\.1"):
        sj.search.channel_search(*chain, limit=0.05, multiple=1)
    with pytest.raises(ValueError, match="needs groups of more than 16 channels"):
        sj.search.channel_search(*chain, limit=0.5, multiple=16)


class Mixed(nn.Module):
    """A residual sum, a concatenation, a depthwise and a grouped convolution, heads."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        x = x + nn.Conv(8, (3, 3), feature_group_count=8)(x)
        y = nn.relu(nn.Conv(12, (1, 1), strides=2)(x))
        y = jnp.concatenate([y, nn.Conv(6, (1, 1), strides=2)(x)], -1)
        y = nn.Conv(8, (3, 3), feature_group_count=2)(y).reshape(len(x), -1, 8)
        y = nn.MultiHeadDotProductAttention(num_heads=4, qkv_features=16)(y)
        return nn.Dense(3)(y.mean(1))


@pytest.fixture(scope="module")
def mixed():
    model, x = Mixed(), np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    return model.apply, jax.jit(model.init)(jax.random.key(0), x), x


def half(groups):
    return {group.name: np.arange(group.size) % 2 == 0 for group in groups}


def test_costs_are_those_of_the_network_that_is_cut(mixed):
    apply, params, x = mixed
    costs = sj.search.width_costs(*mixed)
    assert len(costs.groups.prunable) >= 5
    keep = half(costs.groups.prunable)
    small = sj.shrink(apply, params, x, keep=keep)
    widths = {name: int(own.sum()) for name, own in keep.items()}
    counted = sum(sj.multiply_adds(small.apply, small.params, x).values())
    assert costs.multiply_adds(widths) == counted
    assert costs.parameters(widths) == sum(leaf.size for leaf in jax.tree.leaves(small.params))


def test_masked_gives_what_the_network_that_is_cut_gives(mixed):
    apply, params, x = mixed
    own = sj.search.channel_search(*mixed, limit=0.5, multiple=1)
    scores = sj.channel_scores(sj.channel_groups(*mixed), params, sj.structured.channel_l1())
    keep = own.keep(dict.fromkeys(own.space, 0.5), scores)
    small = sj.shrink(apply, params, x, keep=keep)
    masked = jax.jit(apply)(own.masked(params, keep), x)
    np.testing.assert_allclose(small.apply(small.params, x), masked, rtol=1e-4, atol=1e-5)


def test_reconstruction_is_least_squares(chain):
    apply, params, _ = chain
    x = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)
    plan = sj.plan(params, {"[bc]/kernel": sj.Unstructured()}, sparsity=0.0)
    calibration = sj.post.calibrate(apply, params, plan, [x])
    own = sj.search.channel_search(apply, params, x, limit=0.5, multiple=1)
    keep = {"a/kernel": np.arange(10) < 4, "b/kernel": np.arange(10) != 3}
    masked = own.masked(params, keep)
    found = sj.search.reconstructed(params, masked, calibration)
    inputs = np.maximum(np.maximum(x, 0) @ params["a"]["kernel"], 0)
    outputs = inputs @ params["b"]["kernel"]
    wanted = np.linalg.lstsq(inputs[:, :4], outputs, rcond=None)[0]
    wanted[:, 3] = 0.0
    given = inputs[:, :4] @ found["b"]["kernel"][:4]
    np.testing.assert_allclose(given, inputs[:, :4] @ wanted, rtol=1e-3, atol=1e-3)
    assert not np.any(found["b"]["kernel"][4:])
    whole = sj.search.reconstructed(params, params, calibration)
    jax.tree.map(np.testing.assert_array_equal, whole, params)


def test_layers_have_their_sizes():
    model, x = Mixed(), np.zeros((2, 4, 4, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    layers = sj.search.weight_layers(model.apply, params, x)
    first, depthwise, strided, _, grouped, *_, last = layers
    assert first[1:] == (3, 8, 9, 1, 1, True, 216, 2 * 16 * 216, 96, 256)
    assert depthwise.is_depthwise and depthwise[1:6] == (8, 8, 9, 1, 8)
    assert strided[1:] == (8, 12, 1, 2, 1, True, 96, 2 * 4 * 96, 256, 96)
    assert not grouped.is_depthwise and grouped[1:6] == (18, 8, 9, 1, 2)
    assert last[1:] == (8, 3, 1, 1, 1, False, 24, 48, 16, 6)
    counts = sj.multiply_adds(model.apply, params, x)
    assert {layer.path: layer.multiply_adds for layer in layers} == counts
