"""A shrunk network gives what the masked one gives, in every mode, and says what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests.shrinking.networks import distance, drawn, masked, normal

X = normal(2, 6, 6, 4)
PARAMS = {
    "conv": {"kernel": normal(3, 3, 4, 8) / 6, "bias": normal(8)},
    "norm": {"scale": normal(8), "shift": normal(8), "mean": normal(8), "var": normal(8) ** 2},
    "dw": {"kernel": normal(3, 3, 1, 8)},
    "pw": {"kernel": normal(1, 1, 8, 6) / 3, "bias": normal(6)},
    "head": {"kernel": normal(6, 3), "bias": normal(3)},
}


def conv(x, kernel, groups=1, padding="SAME"):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=dims, feature_group_count=groups
    )


def apply(p, x):
    h = conv(x, p["conv"]["kernel"]) + p["conv"]["bias"]
    h = (h - p["norm"]["mean"]) * jax.lax.rsqrt(p["norm"]["var"] + 1e-3)
    h = jax.nn.relu6(h * p["norm"]["scale"] + p["norm"]["shift"])
    h = jax.nn.relu(conv(h, p["dw"]["kernel"], 8))
    h = jax.nn.silu(conv(h, p["pw"]["kernel"]) + p["pw"]["bias"])
    return h.mean((1, 2)) @ p["head"]["kernel"] + p["head"]["bias"]


KEEP = {"conv/kernel": np.arange(8) % 4 != 1, "pw/kernel": np.arange(6) != 2}
SMALL = sj.shrink(apply, PARAMS, X, keep=KEEP)
MASKED = masked(sj.channel_groups(apply, PARAMS, X), PARAMS, KEEP)


def test_leaves_lose_what_is_pruned_and_no_more():
    shapes = jax.tree.map(np.shape, SMALL.params, is_leaf=lambda x: isinstance(x, np.ndarray))
    assert shapes["conv"] == {"kernel": (3, 3, 4, 6), "bias": (6,)}
    assert shapes["dw"] == {"kernel": (3, 3, 1, 6)}
    assert shapes["pw"] == {"kernel": (1, 1, 6, 5), "bias": (5,)}
    assert shapes["head"] == {"kernel": (5, 3), "bias": (3,)}
    np.testing.assert_array_equal(
        SMALL.params["head"]["kernel"], PARAMS["head"]["kernel"][KEEP["pw/kernel"]]
    )
    assert SMALL.widths == {"conv/kernel": 6, "pw/kernel": 5, "head/kernel": 3}


def test_it_gives_what_the_masked_network_gives_on_any_batch():
    for batch in (1, 2, 5):
        x = normal(batch, 6, 6, 4)
        assert distance(SMALL.apply(SMALL.params, x), jax.jit(apply)(MASKED, x)) < 1e-5


def test_its_gradients_are_those_of_the_masked_network():
    loss = lambda f: lambda p: jnp.sum(f(p, X) ** 2)
    own = jax.jit(jax.grad(loss(SMALL.apply)))(SMALL.params)
    large = jax.jit(jax.grad(loss(apply)))(MASKED)
    cut = sj.shrink(apply, large, X, keep=KEEP).params  # the gradients, cut like params
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_what_was_shrunk_can_be_shrunk_again():
    keep = {"conv/kernel": np.arange(6) > 2}
    again = sj.shrink(SMALL.apply, SMALL.params, X, keep=keep)
    want = masked(sj.channel_groups(SMALL.apply, SMALL.params, X), SMALL.params, keep)
    assert again.widths == {"conv/kernel": 3, "pw/kernel": 5, "head/kernel": 3}
    assert distance(again.apply(again.params, X), SMALL.apply(want, X)) < 1e-5


def test_a_tangent_that_is_made_anew_has_the_shape_that_is_left():
    @jax.custom_jvp
    def flat(x):
        return jnp.sign(x)

    flat.defjvp(lambda primals, tangents: (flat(*primals), jnp.zeros(primals[0].shape)))
    f = lambda p, x: flat(x @ p["a"]) @ p["b"]
    small = sj.shrink(f, DENSE, X[0, 0], keep={"a": np.arange(3) > 0})
    grads = jax.jit(jax.grad(lambda p: small.apply(p, X[0, 0]).sum()))(small.params)
    assert not np.any(grads["a"]) and grads["b"].shape == (2, 2)


def test_second_derivatives_go_through_adapted_rules():
    f = lambda p, x: jax.nn.softmax(jax.nn.relu(x @ p["a"]) @ p["b"]).sum(0)[0]
    keep, x = np.arange(3) > 0, X[0, 0]
    small = sj.shrink(f, DENSE, x, keep={"a": keep})
    cut = {**DENSE, "a": DENSE["a"][:, 1:], "b": DENSE["b"][1:]}  # f takes any width
    own, want = (jax.jit(jax.hessian(g))(cut, x)["a"]["b"] for g in (small.apply, f))
    np.testing.assert_allclose(own, want, rtol=1e-3, atol=1e-5)


def test_vmap_compile_and_export_run_it():
    want = SMALL.apply(SMALL.params, X)
    each = jax.jit(jax.vmap(lambda x: SMALL.apply(SMALL.params, x[None])[0]))(X)
    assert distance(each, want) < 1e-5
    fast = sj.compile(SMALL.apply, SMALL.params, X, tune=False)
    assert distance(fast(X), want) < 1e-5
    exported = jax.export.export(jax.jit(SMALL.apply))(SMALL.params, X)
    assert distance(jax.export.deserialize(exported.serialize()).call(SMALL.params, X), want) < 1e-5


def test_moments_follow_and_training_goes_on():
    tx = optax.chain(optax.clip(1.0), optax.adamw(1e-2), optax.trace(0.9))
    grads = jax.tree.map(lambda x: x / 2, PARAMS)
    _, state = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    small = sj.shrink(apply, PARAMS, X, keep=KEEP, opt_state=state)
    adam = small.opt_state[1][0]
    assert jax.tree.map(np.shape, adam.mu) == jax.tree.map(np.shape, small.params)
    np.testing.assert_array_equal(
        adam.nu["pw"]["bias"], state[1][0].nu["pw"]["bias"][KEEP["pw/kernel"]]
    )
    assert int(adam.count) == 1

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: jnp.sum(small.apply(p, X) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, _ = step(small.params, small.opt_state)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, small.params)


def test_factored_moments_are_refused_by_name():
    state = {"rows": {"conv": {"kernel": jnp.ones((3, 3))}}}
    with pytest.raises(ValueError, match=r"^conv/kernel: shrink needs .* at rows/"):
        sj.shrink(apply, PARAMS, X, keep=KEEP, opt_state=state)


def dense(p, x):
    h = jax.nn.relu(x @ p["a"] + p["a_bias"])
    return (h @ p["b"] + p["b_bias"]) ** 2


DENSE = {"a": normal(4, 3), "a_bias": np.array([1.5, -2.0, 3.0], np.float32)}
DENSE |= {"b": normal(3, 2), "b_bias": np.array([1.0, 2.0], np.float32)}


def column_masks(gone, params=DENSE, path="a"):
    masks = jax.tree.map(lambda x: optax.MaskedNode(), params)
    masks[path] = np.ones(params[path].shape, bool)
    masks[path][..., gone] = False
    return masks


def test_the_constant_of_a_masked_channel_goes_into_the_next_bias_by_hand():
    masks = column_masks([0, 1])
    small = sj.shrink(dense, DENSE, X[0, 0], keep=masks)
    assert small.params["a"].shape == (4, 1) and not small.refused
    # Channel 0 is relu(1.5) whatever the input, channel 1 relu(-2) = 0.
    np.testing.assert_allclose(small.params["b_bias"], [1.0, 2.0] + 1.5 * DENSE["b"][0], rtol=1e-6)
    pruned = {**DENSE, "a": DENSE["a"] * masks["a"]}
    assert distance(small.apply(small.params, X[0, 0]), jax.jit(dense)(pruned, X[0, 0])) < 1e-5


FOLDS = {  # what follows a channel of relu(1.5), and does it take the constant
    "mean of a norm": (lambda h, p: h @ p["b"] - p["b_bias"], True),
    "weights on the left": (lambda h, p: (p["b"].T @ h.T).T + p["b_bias"], True),
    "no bias": (lambda h, p: jnp.tanh(h @ p["b"]) + p["b_bias"], False),
    "bias used twice": (lambda h, p: (h @ p["b"] + p["b_bias"]) * p["b_bias"], False),
    "bias on the left": (lambda h, p: p["b_bias"] - h @ p["b"], False),
    "output": (lambda h, p: h @ p["b"], False),
}


@pytest.mark.parametrize("case", FOLDS)
def test_a_constant_is_folded_where_it_is_exact_and_else_the_channel_stays(case):
    behind, folds = FOLDS[case]
    f = lambda p, x: behind(jax.nn.relu(x @ p["a"] + p["a_bias"]), p)
    masks, x = column_masks([0, 1]), X[0, 0]
    if folds:
        small = sj.shrink(f, DENSE, x, keep=masks)
    else:
        with pytest.warns(sj.SparsityWarning, match="pruned channels of a, because of `dot_gen"):
            small = sj.shrink(f, DENSE, x, keep=masks)
    assert small.widths["a"] == (1 if folds else 2)
    pruned = {**DENSE, "a": DENSE["a"] * masks["a"]}
    assert distance(small.apply(small.params, x), jax.jit(f)(pruned, x)) < 1e-5


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_a_constant_is_not_folded_through_a_padded_border(padding):
    params = {"a": normal(1, 1, 4, 3), "a_bias": np.array([1.5, -2.0, 3.0], np.float32)}
    params |= {"b": normal(3, 3, 3, 2), "b_bias": normal(2)}
    f = lambda p, x: (
        conv(jax.nn.relu(conv(x, p["a"]) + p["a_bias"]), p["b"], 1, padding) + p["b_bias"]
    )
    masks = column_masks([0, 1], params)
    pruned = {**params, "a": params["a"] * masks["a"]}
    if padding == "VALID":
        small = sj.shrink(f, params, X, keep=masks)
    else:
        with pytest.warns(sj.SparsityWarning, match="`conv_general_dilated`"):
            small = sj.shrink(f, params, X, keep=masks)
    assert small.keep["a"].tolist() == [padding == "SAME", False, True]
    assert distance(small.apply(small.params, X), jax.jit(f)(pruned, X)) < 1e-5


def test_masks_of_a_training_shrink_what_is_silent():
    plan = sj.plan(PARAMS, {"conv/kernel|pw/kernel": sj.Channel()}, sparsity=0.5)
    tx = sj.sparsify(optax.sgd(0.1), sj.one_shot(0), plan, key=jax.random.key(0))
    state = tx.init(PARAMS)
    _, state = jax.jit(tx.update)(PARAMS, state, PARAMS)
    masks = sj.masks_of(state)
    pruned = sj.masked(PARAMS, masks)
    silent = jax.tree.map(np.asarray, pruned)
    silent["conv"]["bias"] = np.zeros(8, np.float32)
    silent["norm"] = {**silent["norm"], "mean": np.zeros(8, np.float32)}
    silent["norm"]["shift"] = -np.abs(silent["norm"]["shift"])  # relu6 makes it zero
    small = sj.shrink(apply, silent, X, keep=masks)
    assert small.widths["conv/kernel"] == 4 and small.widths["pw/kernel"] == 3
    assert distance(small.apply(small.params, X), jax.jit(apply)(silent, X)) < 1e-5


def test_masks_that_prune_nothing_cut_nothing():
    nothing = jax.tree.map(lambda x: optax.MaskedNode(), DENSE)
    small = sj.shrink(dense, DENSE, X[0, 0], keep=nothing)
    assert small.widths == {"a": 3, "b": 2} and not small.keep


def test_a_plan_keeps_the_channels_of_most_magnitude():
    plan = sj.plan(PARAMS, {"conv/kernel": (sj.Channel(), 0.25), "pw": None}, sparsity=0.5)
    small = sj.shrink(apply, PARAMS, X, keep=plan)
    magnitudes = np.abs(PARAMS["conv"]["kernel"]).sum((0, 1, 2))
    np.testing.assert_array_equal(small.keep["conv/kernel"], magnitudes > np.sort(magnitudes)[1])
    assert small.widths["pw/kernel"] == 6


ROWS = {"up": normal(3, 4, 6), "up_bias": normal(6), "down": normal(3, 6, 4), "out": normal(4, 8)}


def experts(p, x, sizes, act=jax.nn.relu):
    """Experts of rows in order, and a turn of neighbouring pairs as rotary positions are."""
    own = lambda x, name: jax.lax.ragged_dot(x, p[name], sizes)
    h = own(act(own(x, "up") + p["up_bias"]), "down") @ p["out"]
    turned = jnp.stack([-h[:, 1::2], h[:, ::2]], -1).reshape(h.shape)
    return (h * 0.6 + turned * 0.8) @ p["out"].T


def test_experts_and_turned_pairs_are_cut():
    x, sizes = normal(7, 4), np.array([2, 4, 1])
    keep = {"up": np.arange(6) % 3 != 0, "out": np.arange(4) != 1}
    small = sj.shrink(experts, ROWS, x, sizes, keep=keep)
    assert jax.tree.map(np.shape, small.params) == {
        "up": (3, 4, 4), "up_bias": (4,), "down": (3, 4, 4), "out": (4, 6)
    }  # fmt: skip
    zeros = masked(sj.channel_groups(experts, ROWS, x, sizes), ROWS, keep)
    for own in (sizes, np.array([0, 3, 4])):
        expected = jax.jit(experts)(zeros, x, own)
        assert distance(small.apply(small.params, x, own), expected) < 1e-5
    grads = jax.grad(lambda p: (small.apply(p, x, sizes) ** 2).sum())(small.params)
    wide = jax.grad(lambda p: (experts(p, x, sizes) ** 2).sum())(zeros)
    assert distance(grads["down"], wide["down"][:, keep["up"]]) < 1e-5
    masks = column_masks([0, 1], {**ROWS, "up_bias": np.zeros(6, np.float32)}, "up")
    with pytest.warns(sj.SparsityWarning, match="pruned channels of up, because of `ragged_dot"):
        kept = sj.shrink(lambda *own: experts(*own, jax.nn.sigmoid), ROWS, x, sizes, keep=masks)
    assert kept.widths["up"] == 6  # as sigmoid(0) is a half


def test_scans_attention_and_remat_are_cut():
    layers = {
        "q": normal(2, 8, 8),
        "k": normal(2, 8, 4),
        "v": normal(2, 8, 4),
        "o": normal(2, 8, 8),
    }
    layers |= {"u": normal(2, 8, 12), "d": normal(2, 12, 8)}
    params = {"in": normal(4, 8), "layers": layers, "out": normal(8, 3)}

    @jax.checkpoint
    def layer(h, p):
        q, k, v = ((h @ p[n]).reshape(len(h), -1, 2) for n in "qkv")
        k, v = (jnp.repeat(x, 2, axis=1) for x in (k, v))
        weights = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / 2)
        h = h + jnp.einsum("hqk,khd->qhd", weights, v).reshape(h.shape) @ p["o"] / 8
        return h + jax.nn.relu(h @ p["u"]) @ p["d"] / 12, h.sum()

    def f(p, x):
        h, sums = jax.lax.scan(layer, x @ p["in"], p["layers"])
        return jax.lax.cond(sums.sum() > 0, jnp.tanh, jnp.sin, h) @ p["out"]

    x = X[0, 0]
    groups = sj.channel_groups(f, params, x)
    keep = drawn(groups, 0.5)
    assert [group.size for group in groups.prunable] == [8, 2, 2, 2, 2, 12]
    small = sj.shrink(f, params, x, keep=keep)
    want = jax.jit(f)(masked(groups, params, keep), x)
    assert distance(small.apply(small.params, x), want) < 1e-5
    grads = jax.jit(jax.grad(lambda p: small.apply(p, x).sum()))(small.params)
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, small.params)


ERRORS = {
    "name": ({"conv": np.ones(8, bool)}, "names of groups, got 'conv'; there are conv/kernel, pw"),
    "size": ({"conv/kernel": np.ones(6, bool)}, "conv/kernel: shrink needs 8 flags"),
    "none": ({"conv/kernel": np.zeros(8, bool)}, "conv/kernel: shrink needs 8 flags"),
    "output": (
        {"head/kernel": np.arange(3) > 0},
        "^head/kernel: shrink cannot .* an output of the",
    ),
    "plan": (sj.plan(PARAMS, {"head/kernel": sj.Channel()}, sparsity=0.4), "needs a plan that"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_who_what_and_got(error):
    keep, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        sj.shrink(apply, PARAMS, X, keep=keep)


def test_a_custom_vjp_on_cut_channels_is_not_differentiated_in_silence():
    @jax.custom_vjp
    def clipped(x):
        return jnp.clip(x, -1, 1)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, g: (g,))
    f = lambda p, x: clipped(x @ p["a"]) @ p["b"]
    small = sj.shrink(f, DENSE, X[0, 0], keep={"a": np.array([True, False, True])})
    assert small.apply(small.params, X[0, 0]).shape == (6, 2)
    with pytest.raises(NotImplementedError, match=r"through a jax\.custom_vjp"):
        jax.grad(lambda p: small.apply(p, X[0, 0]).sum())(small.params)
