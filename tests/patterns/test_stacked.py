"""A stack of layers is planned, pruned, trained and reported as its layers would be one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases

LAYERS, SHAPE = 2, (8, 12)
HARD = cases.METHODS | cases.GLOBAL_METHODS | cases.SWELLING_METHODS


def layers(seed=0, shape=SHAPE):
    """Kernels whose sizes differ from layer to layer."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape) * (i + 1), jnp.float32) for i in range(LAYERS)]


def written_out(kernels):
    return {"layers": {str(i): kernel for i, kernel in enumerate(kernels)}, "bias": jnp.ones(4)}


def stacked(kernels, axis=0):
    return {"layers": jnp.stack(kernels, axis), "bias": jnp.ones(4)}


def both_plans(pattern, sparsity, allocate=sj.allocate.lamp, axis=0):
    """The plan of a stack and that of its layers."""
    kernels = layers()
    options = {"sparsity": sparsity, "allocate": allocate}
    one = sj.plan(stacked(kernels, axis), {"layers": sj.Stacked(pattern, axis)}, **options)
    return one, sj.plan(written_out(kernels), {"layers": pattern}, **options)


def as_stack(tree, axis=0):
    """A tree with the layers written out, as that of the stack; steps lie in front."""
    kernels = [np.asarray(tree["layers"][str(i)]) for i in range(LAYERS)]
    return np.stack(kernels, kernels[0].ndim - len(SHAPE) + axis)


PATTERNS = {
    "unstructured": (sj.Unstructured(), 0.8),
    "block": (sj.Block(4, 1), 0.5),
    "channel": (sj.Channel(), 0.5),
    "nm": (sj.NM(2, 4), 0.5),
}
ALLOCATORS = {
    "uniform": sj.allocate.uniform,
    "erk": sj.allocate.erk,
    "lamp": sj.allocate.lamp,
    "global": sj.allocate.global_magnitude,
    "minimum": sj.allocate.global_magnitude_with_minimum(min_weights=8),
}


@pytest.mark.parametrize("allocate", ALLOCATORS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_budget_is_divided_among_the_layers(pattern, allocate):
    stack, single = both_plans(*PATTERNS[pattern], ALLOCATORS[allocate], axis=1)
    assert [leaf.path for leaf in stack.leaves] == [f"layers[{i}]" for i in range(LAYERS)]
    assert [leaf.num_pruned for leaf in stack.leaves] == [x.num_pruned for x in single.leaves]
    assert all(leaf.shape == SHAPE for leaf in stack.leaves)
    assert stack.shapes == {"layers": (8, LAYERS, 12)} and stack.sparsity == single.sparsity
    assert sj.Plan.from_json(stack.to_json()) == stack


def wave(kernel, step):
    index = jnp.arange(kernel.size, dtype=jnp.float32).reshape(kernel.shape)
    return jnp.sin(7.0 * kernel + 3.0 * index + step)


def masks_of_run(transform, plan, params, split):
    """The masks after each of some steps, with weights and gradients that move; `split` says how
    a tree is seen as its layers, and what makes it one again."""
    apart, together = split
    move = lambda tree, step: together([wave(kernel, step) for kernel in apart(tree)])
    key = jax.random.key(0)

    def one_step(carry, step):
        context = sj.masks.MaskContext(plan, step, jax.random.fold_in(key, step))
        carry = transform.update(*carry, move(params, step), move(params, step + 50), context)
        return carry, carry[0]

    first = sj.masks.MaskContext(plan, jnp.int32(0), key)
    start = transform.init(sj.masks.full_masks(params, plan), params, first)
    return jax.lax.scan(one_step, start, jnp.arange(cases.NUM_STEPS))[1]


def stack_split(axis):
    return lambda t: list(jnp.moveaxis(t["layers"], axis, 0)), lambda k: stacked(k, axis)


SINGLE_SPLIT = lambda t: [t["layers"][str(i)] for i in range(LAYERS)], written_out


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        *(("gmp", "block"), ("rigl", "unstructured"), ("static_random", "channel")),
        *(("mest_ems", "nm"), ("gap", "unstructured"), ("ac_dc_global", "unstructured")),
        ("global_mp", "unstructured"),
    ],
)
def test_methods_mask_a_stack_as_its_layers(method, pattern):
    axis = 1 if method in ("rigl", "global_mp") else 0
    stack, single = both_plans(*PATTERNS[pattern], axis=axis)
    transform = HARD[method].transform

    @jax.jit
    def run():
        one = masks_of_run(transform, stack, stacked(layers(), axis), stack_split(axis))
        return one, masks_of_run(transform, single, written_out(layers()), SINGLE_SPLIT)

    one, other = run()
    np.testing.assert_array_equal(one["layers"], as_stack(other, axis))
    if method in cases.METHODS:
        kept = np.moveaxis(np.asarray(one["layers"][-1]), axis, 0).reshape(LAYERS, -1).sum(1)
        assert kept.tolist() == [leaf.num_weights - leaf.num_pruned for leaf in stack.leaves]


# Gradients of no loss: what counts is that stack and layers do the same with them.
@pytest.mark.filterwarnings("ignore::sparsejax.ForwardWarning")
@pytest.mark.parametrize("method", ["pdp", "str"])
def test_soft_methods_train_a_stack_as_its_layers(method):
    made = cases.SOFT_METHODS[method].make()
    stack, single = both_plans(sj.Unstructured(), 0.8)
    learned = optax.adam(0.05)

    @jax.jit
    def run():
        ends = []
        for plan, make, apart in (
            (stack, stacked, stack_split(0)[0]),
            (single, written_out, SINGLE_SPLIT[0]),
        ):
            params = make(layers())
            key = jax.random.key(0)
            tx = sj.sparsify(optax.adam(0.05), made, plan, key=key, learned_tx=learned)
            state = tx.init(params)
            grads = make([wave(kernel, 0) for kernel in apart(params)])
            state = state._replace(step=jnp.int32(8))  # on the ramp
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            ends.append((params, sj.effective(params, state), sj.harden(params, state)))
        return ends

    for one, other in zip(*run(), strict=True):
        np.testing.assert_allclose(one["layers"], as_stack(other), rtol=1e-4, atol=1e-6)


def scanned(params, x):
    """Dense layers under `scan(remat(...))`, as large models have them."""
    layer = jax.checkpoint(lambda x, kernel: (jax.nn.relu(x @ kernel), None))
    return jax.lax.scan(layer, x, params["layers"])[0]


def test_scans_of_remat_are_compiled_and_each_layer_has_its_row():
    kernels = layers(shape=(16, 16))
    params = stacked(kernels)
    plan = sj.plan(params, {"layers": sj.Stacked(sj.Unstructured())}, sparsity=0.9)
    masks = sj.masks.masks_from_scores(jax.tree.map(jnp.abs, params), globally=False)(params, plan)
    params = sj.masked(params, masks)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 16)), jnp.float32)
    fast = sj.compile(scanned, params, x, plan=plan, tune=False)
    np.testing.assert_allclose(fast(x), scanned(params, x), rtol=1e-4, atol=1e-4)
    assert [row.pattern for row in fast.report().layers] == ["CSR"] * LAYERS
    rows = sj.report(params, plan, apply_fn=scanned, example=x).leaves[1:]
    assert [row.path for row in rows] == ["layers[0]", "layers[1]"]
    assert [row.nonzeros for row in rows] == [256 - leaf.num_pruned for leaf in plan.leaves]
    assert [row.multiply_adds for row in rows] == [4 * 16 * 16] * LAYERS


def test_without_training_a_stack_is_pruned_as_its_layers():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(32, 8)), jnp.float32)

    def apply(params, x):
        step = lambda x, kernel: (jnp.tanh(x @ kernel), None)
        if not isinstance(params["layers"], dict):
            return jax.lax.scan(step, x, params["layers"])[0]
        for kernel in params["layers"].values():
            x = step(x, kernel)[0]
        return x

    loss = lambda params, x: jnp.mean((apply(params, x) - x) ** 2)
    found = []
    kernels = layers(shape=(8, 8))
    for params, rule in (
        (stacked(kernels), sj.Stacked(sj.Unstructured())),
        (written_out(kernels), sj.Unstructured()),
    ):
        plan = sj.plan(params, {"layers": rule}, sparsity=0.5, allocate=sj.allocate.uniform)
        seen = sj.post.calibrate(apply, params, plan, [x])
        masks = {
            "snip": sj.before.snip(loss, [x])(params, plan),
            "grasp": sj.before.grasp(loss, [x], globally=False)(params, plan),
            "synflow": sj.before.synflow(apply, jnp.full((1, 8), 0.1), rounds=3)(params, plan),
            "wanda": sj.post.wanda(seen)(params, plan),
        }
        weights, masks["exact_obs"] = sj.post.exact_obs(params, plan, seen)
        corrected = sj.post.obs_correct(params, masks["wanda"], seen)
        found.append((masks, {"exact_obs": weights, "obs_correct": corrected}))
    for name, mask in found[0][0].items():
        np.testing.assert_array_equal(mask["layers"], as_stack(found[1][0][name]), err_msg=name)
    for name, weights in found[0][1].items():
        other = as_stack(found[1][1][name])
        np.testing.assert_allclose(weights["layers"], other, rtol=1e-3, atol=1e-4, err_msg=name)


def test_layers_of_a_stack_are_not_rearranged():
    params = stacked(layers(shape=(8, 8)))
    plan = sj.plan(params, {"layers": sj.Stacked(sj.Block(2, 1))}, sparsity=0.5)
    with pytest.raises(ValueError, match=r"rearrange needs .* layers\[0\] is one of a stack"):
        sj.structured.rearrange(scanned, params, plan, jnp.ones((1, 8)))


def test_errors_name_the_axes_and_the_layers():
    params = stacked(layers())
    for axes in (3, (0, 1, 2), (0, 0), ()):
        with pytest.raises(ValueError, match="layers: Stacked needs axes that the array has"):
            sj.plan(params, {"layers": sj.Stacked(sj.Unstructured(), axes)}, sparsity=0.5)
    plan = sj.plan(params, {"layers": sj.Stacked(sj.Unstructured())}, sparsity=0.5)
    with pytest.raises(KeyError, match=r"is a stack of 2 leaves, .*slices\('layers'\)"):
        plan.get("layers")
    assert plan["layers[1]"] == plan.slices("layers")[1]
