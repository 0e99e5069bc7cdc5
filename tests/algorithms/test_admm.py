"""ADMM as an optax transform: the update by hand, and convergence into the set."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from tests import cases


def halves(path, weights):
    """A projection onto multiples of a half; biases are free."""
    return None if path == "bias" else jnp.round(2 * weights) / 2


def test_two_rounds_by_hand():
    tx = sj.structured.admm(halves, every=2, rho=0.1, growth=2.0, end=4)
    params = {"kernel": jnp.array([0.6, 1.2]), "bias": jnp.array([0.3])}
    grads = {"kernel": jnp.array([1.0, 1.0]), "bias": jnp.array([1.0])}
    state = tx.init(params)
    # Step 0: Z = (0.5, 1), U = 0: 1 + 0.1 (0.1, 0.2).
    updates, state = tx.update(grads, state, params)
    np.testing.assert_allclose(updates["kernel"], [1.01, 1.02], rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], [1.0])
    # Step 1: no projection yet.
    moved = {"kernel": jnp.array([0.7, 1.2]), "bias": jnp.array([0.3])}
    updates, state = tx.update(grads, state, moved)
    np.testing.assert_allclose(updates["kernel"], [1.02, 1.02], rtol=1e-6)
    # Step 2: Z = P(0.7, 1.2) = (0.5, 1), U = (0.2, 0.2), then rho = 0.2 and U = (0.1, 0.1).
    updates, state = tx.update(grads, state, moved)
    np.testing.assert_allclose(updates["kernel"], 1 + 0.2 * np.array([0.3, 0.3]), rtol=1e-6)
    assert float(state.rho) == pytest.approx(0.2)
    _, state = tx.update(grads, state, moved)
    # Step 4 is the end: (0.7, 1.2) + U = (0.8, 1.3), Z = (1, 1.5).
    updates, state = tx.update(grads, state, moved)
    np.testing.assert_array_equal(updates["kernel"], [1.0, 1.0])
    np.testing.assert_allclose(state.targets["kernel"], [1.0, 1.5])
    apart = np.hypot(0.3, 0.3) / np.hypot(0.7, 1.2)
    assert float(sj.structured.admm_residual(moved, (state,))) == pytest.approx(apart, rel=1e-5)


@pytest.mark.parametrize("pattern", cases.PATTERNS)
def test_projection_onto_a_pattern_is_idempotent_and_nearest(pattern):
    params = cases.dict_params()
    plan = cases.planned(*cases.PATTERNS[pattern], params)
    project = sj.structured.onto_patterns(plan)
    weights, leaf = params["conv"]["kernel"], plan["conv/kernel"]

    def whole(weights, draws):
        nearest = project("conv/kernel", weights)
        others = jax.vmap(lambda scores: leaf.pattern.mask(scores, leaf.sparsity))(draws)
        return nearest, project("conv/kernel", nearest), others

    draws = jnp.asarray(np.random.default_rng(1).uniform(size=(5, *leaf.shape)), jnp.float32)
    nearest, again, others = map(np.asarray, jax.jit(whole)(weights, draws))
    np.testing.assert_array_equal(again, nearest)
    assert np.sum(nearest == 0) == leaf.num_pruned
    for other in others:
        assert np.sum((weights - nearest) ** 2) <= np.sum(np.where(other, 0.0, weights**2))
    assert project("head/kernel", params["head"]["kernel"]) is None


def test_admm_ends_in_a_better_sparse_solution_than_pruning_once():
    """Least squares with correlated inputs: W moves into the set, and the pruned loss is lower."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(64, 16)) @ generator.normal(size=(16, 16)) / 4
    targets = inputs @ generator.normal(size=(16, 4))
    params = {"kernel": jnp.asarray(np.linalg.lstsq(inputs, targets, rcond=None)[0], jnp.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    project = sj.structured.onto_patterns(plan)
    x, y = jnp.asarray(inputs, jnp.float32), jnp.asarray(targets, jnp.float32)
    loss = lambda p: jnp.mean((x @ p["kernel"] - y) ** 2)
    tx = optax.chain(sj.structured.admm(project, every=25, rho=0.05), optax.adam(0.02))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), sj.structured.admm_residual(
            params, state
        )

    end, residuals = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=600))(params)
    assert residuals[-1] < 0.01 < 0.1 < residuals[0]
    pruned = lambda p: float(loss({"kernel": project("kernel", p["kernel"])}))
    assert pruned(end[0]) < 0.5 * pruned(params)


def test_admm_errors():
    with pytest.raises(ValueError, match="admm needs every >= 1"):
        sj.structured.admm(halves, every=0)
    with pytest.raises(ValueError, match="0 < rho <= max_rho"):
        sj.structured.admm(halves, every=1, rho=2.0)
    tx = sj.structured.admm(halves, every=1)
    params = {"kernel": jnp.ones(2)}
    with pytest.raises(ValueError, match="admm needs the params"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="one ADMMState, found 0"):
        sj.structured.admm_residual(params, ())


def test_admm_trains_in_an_nnx_optimizer():
    model = cases.NNX(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    plan = sj.plan(params, {"layers/0/kernel": sj.Unstructured()}, sparsity=0.5)
    tx = optax.chain(
        sj.structured.admm(sj.structured.onto_patterns(plan), every=2, rho=0.5), optax.sgd(0.5)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))

    for _ in range(40):
        step(model, optimizer)
    kernel = np.abs(np.asarray(model.layers[0].kernel[...]))
    assert np.sum(kernel < 1e-3) == 64, "without a task the weights end in the set"
    assert (
        float(sj.structured.admm_residual(nnx.state(model, nnx.Param), optimizer.opt_state)) < 1e-2
    )
