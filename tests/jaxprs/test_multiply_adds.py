"""What a function does with its weights: multiply-adds by hand, and calibrate sees the same."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests.jaxprs.traced_functions import CASES, check_counts
from tests.jaxprs.traced_functions import drawn as arrays


@pytest.mark.parametrize("name", CASES)
def test_multiply_adds_are_those_worked_by_hand(name):
    check_counts(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_calibrate_finds_the_same_weights_or_names_what_it_cannot_follow(name):
    case = CASES[name]
    params, x = arrays(case)
    pattern = lambda shape: (
        sj.Stacked(sj.Unstructured()) if case.stacked and len(shape) == 3 else sj.Unstructured()
    )
    plan_of = lambda leaves: sj.plan(
        params, {f"^{leaf}$": pattern(case.params[leaf]) for leaf in leaves}, sparsity=0.5
    )
    for leaf in set(params) - set(case.counts):
        with pytest.raises(ValueError, match=f"^{leaf}: .* with this leaf, it"):
            sj.post.calibrate(case.f, params, plan_of([leaf]), [x])
    if not case.counts:
        return
    plan = plan_of(case.counts)
    if case.refused:
        with pytest.raises(ValueError, match=f"^[wab]: calibrate .*{case.refused}"):
            sj.post.calibrate(case.f, params, plan, [x])
        return
    calibration = sj.post.calibrate(case.f, params, plan, [x])
    for leaf in plan.leaves:
        positions = calibration[leaf.path].positions
        assert sorted(positions.ravel()) == list(range(math.prod(leaf.shape)))


def test_each_layer_of_a_scan_sees_its_own_inputs():
    case = CASES["scanned"]
    params, x = arrays(case)
    plan = sj.plan(params, {"w": sj.Stacked(sj.NM(2, 4))}, sparsity=0.5)
    calibration = sj.post.calibrate(case.f, params, plan, [x, 2 * x])
    wanted, rows = [0.0, 0.0, 0.0], [x, 2 * x]
    for index, kernel in enumerate(params["w"]):
        wanted[index] = sum(np.asarray(row, np.float64).T @ np.asarray(row) for row in rows)
        rows = [jnp.tanh(row @ kernel) for row in rows]
    for index, leaf in enumerate(plan.leaves):
        np.testing.assert_allclose(calibration[leaf.path].gram[0], wanted[index], rtol=1e-5)
    pruned, masks = sj.post.sparse_gpt(params, plan, calibration)
    by_wanda = sj.post.wanda(calibration)(params, plan)["w"]
    corrected = sj.post.obs_correct(params, masks, calibration)["w"]
    assert masks["w"].shape == by_wanda.shape == (3, 4, 4)
    for index, leaf in enumerate(plan.leaves):
        one = {"w": params["w"][index]}
        own = sj.plan(one, {"w": sj.NM(2, 4)}, sparsity=0.5)
        seen = {"w": replace(calibration[leaf.path], at=())}
        alone, kept = sj.post.sparse_gpt(one, own, seen)
        np.testing.assert_array_equal(masks["w"][index], kept["w"])
        np.testing.assert_array_equal(by_wanda[index], sj.post.wanda(seen)(one, own)["w"])
        np.testing.assert_allclose(pruned["w"][index], alone["w"])
        np.testing.assert_array_equal(corrected[index], sj.post.obs_correct(one, kept, seen)["w"])


def test_a_transposed_convolution_has_no_zeros_of_dilation():
    conv = lambda w, x: jax.lax.conv_transpose(x, w, (2, 2), "SAME")
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    assert sj.multiply_adds(conv, shape(4, 4, 16, 8), shape(1, 16, 16, 16)) == {"": 524_288}


def test_slices_of_a_fused_kernel_are_one_layer():
    case = CASES["sliced"]
    params, x = arrays(case)
    plan = sj.plan(params, {"w": sj.Unstructured()}, sparsity=0.5)
    inputs = sj.post.calibrate(case.f, params, plan, [x])["w"]
    assert inputs.positions.shape == (1, 8, 4)
    np.testing.assert_allclose(inputs.gram[0], np.asarray(x).T @ np.asarray(x), rtol=1e-5)


TOKENS, WIDTH, HEADS, SIZE, WIDE, VOCABULARY, LAYERS = 5, 8, 2, 4, 12, 11, 2
LAYER = {
    **dict.fromkeys(("norm_attention", "norm_mlp"), (WIDTH,)),
    **dict.fromkeys("qkv", (WIDTH, HEADS, SIZE)),
    "out": (HEADS, SIZE, WIDTH),
    **dict.fromkeys(("gate", "up"), (WIDTH, WIDE)),
    "down": (WIDE, WIDTH),
}


def rms_norm(x, scale):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


def layer_of(p, x):
    h = rms_norm(x, p["norm_attention"])
    q, k, v = (jnp.einsum("btd,dhe->bthe", h, p[name]) for name in "qkv")
    scores = jnp.einsum("bthe,bshe->bhts", q, k) / SIZE**0.5
    causal = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
    mixed = jnp.einsum("bhts,bshe->bthe", weights, v)
    x = x + jnp.einsum("bthe,hed->btd", mixed, p["out"])
    h = rms_norm(x, p["norm_mlp"])
    return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]


def language_model(p, tokens):
    x = p["embedding"][tokens]
    for layer in p["layers"]:
        x = layer_of(layer, x)
    return rms_norm(x, p["norm"]) @ (p["head"] if "head" in p else p["embedding"].T)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
def test_a_causal_language_model_counts_as_by_hand(tied, batch):
    shapes = {"embedding": (VOCABULARY, WIDTH), "norm": (WIDTH,), "layers": [LAYER] * LAYERS}
    shapes |= {} if tied else {"head": (WIDTH, VOCABULARY)}
    is_shape = lambda x: isinstance(x, tuple)
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=is_shape)
    counts = sj.multiply_adds(
        language_model, params, jax.ShapeDtypeStruct((batch, TOKENS), jnp.int32)
    )
    rows = batch * TOKENS
    by_hand = {"embedding" if tied else "head": rows * WIDTH * VOCABULARY}
    for layer in range(LAYERS):
        by_hand |= {f"layers/{layer}/{name}": rows * WIDTH * HEADS * SIZE for name in "qkv"}
        by_hand[f"layers/{layer}/out"] = rows * HEADS * SIZE * WIDTH
        by_hand |= {
            f"layers/{layer}/{name}": rows * WIDTH * WIDE for name in ("gate", "up", "down")
        }
    assert counts == by_hand
