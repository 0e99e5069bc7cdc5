"""SparseGPT, ExactOBS: worked by hand, against brute force, and in every shape of layer."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import sparsejax as sj
from sparsejax.algorithms.post_training import surgeon
from sparsejax.algorithms.post_training.exact_obs import _traces
from tests import cases
from tests.algorithms.calibrated_layers import calibrated, inputs_like, random_layer

NO_DAMPING = 1e-12


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def loss(x, before, after):
    x = np.asarray(x, np.float64)
    return np.square(x @ (np.asarray(before, np.float64) - np.asarray(after, np.float64))).sum()


def test_the_surgeon_by_hand():
    # H = [[2, 1], [1, 2]], H^-1 = [[2, -1], [-1, 2]] / 3; w = (1, 3): errors w^2 / H^-1_pp are 1.5
    # and 13.5, so w_0 goes and w_1 becomes 3 - 1 * (-1 / 2) = 3.5.
    x = inputs_like([[2.0, 1.0], [1.0, 2.0]])
    for prune in (sj.post.exact_obs, sj.post.sparse_gpt):
        params, plan, calibration = calibrated([[1.0], [3.0]], x, sj.Unstructured(), 0.5)
        pruned, masks = prune(params, plan, calibration, damping=NO_DAMPING)
        np.testing.assert_allclose(pruned["kernel"][:, 0], [0.0, 3.5], rtol=1e-6)
        assert masks["kernel"][:, 0].tolist() == [False, True]
    masks = {"kernel": jnp.array([[False], [True]])}
    corrected = sj.post.obs_correct(params, masks, calibration, damping=NO_DAMPING)
    np.testing.assert_allclose(corrected["kernel"][:, 0], [0.0, 3.5], rtol=1e-6)


def test_sparse_gpt_by_hand_does_not_look_back():
    # The same H with w = (3, 1): w_1 goes. SparseGPT scores by U_jj^2 with H^-1 = U^T U, that is
    # 2/3 and 1/2: errors 13.5 and 2. Columns to the left of w_1 stay as they were.
    x = inputs_like([[2.0, 1.0], [1.0, 2.0]])
    params, plan, calibration = calibrated([[3.0], [1.0]], x, sj.Unstructured(), 0.5)
    pruned, _ = sj.post.sparse_gpt(params, plan, calibration, damping=NO_DAMPING)
    np.testing.assert_allclose(pruned["kernel"][:, 0], [3.0, 0.0], rtol=1e-6)
    pruned, _ = sj.post.exact_obs(params, plan, calibration, damping=NO_DAMPING)
    np.testing.assert_allclose(pruned["kernel"][:, 0], [3.5, 0.0], rtol=1e-6)


def test_elimination_is_the_rows_of_the_cholesky_factor():
    """Row p of U is, in scale, row p of the inverse after 0..p-1 were eliminated from it."""
    gram = random_layer(6, 3, sj.Unstructured(), 0.5)[2]["kernel"].gram[0]
    inverse = surgeon.inverse_hessian(gram, 0.01)
    upper = np.linalg.cholesky(inverse).T
    for p in range(6):
        np.testing.assert_allclose(inverse[p, p:], upper[p, p] * upper[p, p:], rtol=1e-8)
        inverse = inverse - np.outer(inverse[p], inverse[p]) / inverse[p, p]


def brute_force(weights, hessian, count):
    """The best of all masks with `count` zeros for one output, and its weights."""
    best = None
    for gone in itertools.combinations(range(len(weights)), count):
        kept = [i for i in range(len(weights)) if i not in gone]
        new = np.zeros_like(weights)
        if kept:
            new[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], (hessian @ weights)[kept])
        error = (new - weights) @ hessian @ (new - weights)
        best = min(best or (np.inf,), (error, gone, new), key=lambda found: found[0])
    return best


def greedy_oracle(weights, hessian, count):
    """Remove one weight at a time, each time trying all and solving anew, in float64."""
    gone = []
    for _ in range(count):
        errors = {}
        for p in set(range(len(weights))) - set(gone):
            kept = [i for i in range(len(weights)) if i not in (*gone, p)]
            new = np.zeros_like(weights)
            if kept:
                new[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], (hessian @ weights)[kept])
            errors[p] = (new - weights) @ hessian @ (new - weights), new
        best = min(errors, key=lambda p: errors[p][0])
        gone.append(best)
        solution = errors[best][1]
    return solution


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_exact_obs_is_greedy_removal_by_trying_all(count):
    params, plan, calibration, _ = random_layer(8, 1, sj.Unstructured(), count / 8, seed=count)
    pruned, masks = sj.post.exact_obs(params, plan, calibration)
    weights = np.asarray(params["kernel"], np.float64)[:, 0]
    hessian = surgeon.damped(calibration["kernel"].gram[0], 0.01)
    wanted = greedy_oracle(weights, hessian, count)
    np.testing.assert_allclose(pruned["kernel"][:, 0], wanted, rtol=1e-5)
    if count == 1:  # then the greedy choice is the best one of all
        _, gone, new = brute_force(weights, hessian, 1)
        assert np.flatnonzero(~np.asarray(masks["kernel"])).tolist() == list(gone)
        np.testing.assert_allclose(pruned["kernel"][:, 0], new, rtol=1e-5)


def test_the_surgeons_errors_add_up_to_what_the_layer_loses():
    """Each step's w_p^2 / [H^-1]_pp is what the quadratic error grows by."""
    params, _, calibration, _ = random_layer(8, 3, sj.Unstructured(), 0.5)
    gram = surgeon.damped(calibration["kernel"].gram[0], 0.01)
    weights = np.asarray(params["kernel"], np.float64).T
    layer = surgeon.Layer(weights, gram, 12, None)
    order, errors = _traces(weights, np.linalg.inv(gram), layer)
    assert np.array_equal(np.sort(order, axis=1), np.tile(np.arange(8), (3, 1)))
    for steps in range(1, 9):
        for row, own in enumerate(weights):
            kept = np.setdiff1d(np.arange(8), order[row, :steps])
            new = np.zeros_like(own)
            new[kept] = np.linalg.solve(gram[np.ix_(kept, kept)], (gram @ own)[kept])
            loss = (new - own) @ gram @ (new - own)
            assert errors[row, :steps].sum() == pytest.approx(loss, rel=1e-6)


def test_exact_obs_spreads_the_count_by_error():
    params, plan, calibration, _ = random_layer(6, 5, sj.Unstructured(), 0.5)
    weights = np.asarray(params["kernel"], np.float64) * np.array([0.1, 1, 1, 1, 10])
    params = {"kernel": jnp.asarray(weights, jnp.float32)}
    _, masks = sj.post.exact_obs(params, plan, calibration)
    counts = (~np.asarray(masks["kernel"])).sum(0)
    assert counts.sum() == plan.num_pruned == 15
    assert counts[0] >= 5 and counts[4] <= 2


def test_correction_is_the_least_squares_solution():
    params, plan, calibration, x = random_layer(8, 4, sj.Unstructured(), 0.5)
    masks = sj.post.wanda(calibration)(params, plan)
    corrected = sj.post.obs_correct(params, masks, calibration, damping=NO_DAMPING)
    targets = x @ np.asarray(params["kernel"], np.float64)
    for output, kept in enumerate(np.asarray(masks["kernel"]).T):
        solution = np.linalg.lstsq(x[:, kept], targets[:, output], rcond=None)[0]
        np.testing.assert_allclose(corrected["kernel"][kept, output], solution, rtol=1e-3)
        assert not np.any(corrected["kernel"][~kept, output])


def slow_sparse_gpt(matrix, gram, sparsity, block_size, damping=0.01):
    """Algorithm 1 with a full inverse that shrinks by a column at each step, unblocked."""
    matrix, rows = matrix.copy(), len(matrix)
    hessian = gram + np.eye(len(gram)) * damping * np.mean(np.diag(gram))
    kept = np.ones(matrix.shape, bool)
    for j in range(len(gram)):
        if j % block_size == 0:
            stop = min(j + block_size, len(gram))
            diagonal = [np.linalg.inv(hessian[i:, i:])[0, 0] for i in range(j, stop)]
            scores = matrix[:, j:stop] ** 2 / np.array(diagonal)
            total = round(sparsity * matrix.size)
            count = total * stop // len(gram) - total * j // len(gram)
            lowest = np.argsort(scores.ravel(), kind="stable")[:count]
            kept[:, j:stop].reshape(rows, -1)[np.unravel_index(lowest, scores.shape)] = False
        inverse = np.linalg.inv(hessian[j:, j:])
        gone = np.where(kept[:, j], 0.0, matrix[:, j])
        matrix[:, j:] -= gone[:, None] / inverse[0, 0] * inverse[0]
    return np.where(kept, matrix, 0.0), kept


@pytest.mark.parametrize("block_size", [1, 4, 5, 12, 128])
def test_sparse_gpt_is_its_slow_version(block_size):
    params, plan, calibration, _ = random_layer(12, 7, sj.Unstructured(), 0.6)
    pruned, masks = sj.post.sparse_gpt(params, plan, calibration, block_size=block_size)
    matrix = np.asarray(params["kernel"], np.float64).T
    gram = calibration["kernel"].gram[0]
    wanted, kept = slow_sparse_gpt(matrix, gram, plan.sparsity, min(block_size, 12))
    np.testing.assert_array_equal(masks["kernel"].T, kept)
    np.testing.assert_allclose(pruned["kernel"].T, wanted, rtol=1e-4, atol=1e-5)


METHODS = {"sparse_gpt": sj.post.sparse_gpt, "exact_obs": sj.post.exact_obs}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", [sj.Unstructured(), sj.NM(2, 4), sj.NM(1, 4)])
def test_reconstruction_beats_wanda_and_magnitude(method, pattern):
    """On the calibration rows, with the plan's exact count and pattern."""
    params, plan, calibration, x = random_layer(16, 8, pattern, 0.5)
    pruned, masks = METHODS[method](params, plan, calibration)
    kernel, mask = np.asarray(params["kernel"]), np.asarray(masks["kernel"])
    pattern.check(mask)
    assert (~mask).sum() == plan.num_pruned
    assert not np.any(np.asarray(pruned["kernel"])[~mask])
    by_wanda = np.where(sj.post.wanda(calibration)(params, plan)["kernel"], kernel, 0.0)
    by_size = np.where(pattern.mask(np.abs(kernel), plan["kernel"].sparsity), kernel, 0.0)
    error = loss(x, kernel, pruned["kernel"])
    assert error < loss(x, kernel, by_wanda) < loss(x, kernel, by_size)


@pytest.mark.parametrize("method", METHODS)
def test_n_of_m_runs_along_the_inputs_of_a_convolution(method):
    """In HWIO the groups are in the input channels, which the patches' order does not keep."""
    model = linen.Conv(5, (2, 2), use_bias=False)
    x = normal(4, 5, 5, 8)
    params = jax.jit(model.init)(jax.random.key(0), x)
    plan = sj.plan(params, {"kernel": sj.NM(2, 4)}, sparsity=0.5)
    calibration = sj.post.calibrate(model.apply, params, plan, [x])
    pruned, masks = METHODS[method](params, plan, calibration)
    sj.NM(2, 4).check(masks["params"]["kernel"])
    apply = jax.jit(model.apply)
    wanted = np.asarray(apply(params, x))
    by_size = sj.NM(2, 4).mask(jnp.abs(params["params"]["kernel"]), 0.5)
    plain = {"params": {"kernel": np.where(by_size, params["params"]["kernel"], np.float32(0))}}
    error = lambda p: np.square(np.asarray(apply(p, x)) - wanted).sum()
    assert error(pruned) < 0.8 * error(plain)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_convolutions_meet_the_count(method, groups):
    model = linen.Conv(8, (3, 3), feature_group_count=groups, use_bias=False)
    x = normal(2, 6, 6, 4)
    params = jax.jit(model.init)(jax.random.key(0), x)
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.7)
    calibration = sj.post.calibrate(model.apply, params, plan, [x])
    pruned, masks = METHODS[method](params, plan, calibration)
    assert (~np.asarray(masks["params"]["kernel"])).sum() == plan.num_pruned
    assert (np.asarray(pruned["params"]["kernel"]) == 0).sum() == plan.num_pruned


def test_dense_leaves_and_dtypes_stay():
    params = cases.dict_params(dtype=jnp.bfloat16)
    plan = sj.plan(params, {"dense/kernel": sj.Unstructured()}, sparsity=0.5)
    call = lambda params, x: x @ params["dense"]["kernel"]
    x = normal(9, 16).astype(jnp.bfloat16)
    calibration = sj.post.calibrate(call, params, plan, [x])
    pruned, masks = sj.post.sparse_gpt(params, plan, calibration)
    assert pruned["conv"]["kernel"] is params["conv"]["kernel"]
    assert pruned["dense"]["kernel"].dtype == jnp.bfloat16
    assert isinstance(masks["conv"]["kernel"], optax.MaskedNode)
    corrected = sj.post.obs_correct(params, masks, calibration)
    assert corrected["dense"]["kernel"].dtype == jnp.bfloat16


def test_an_input_that_is_always_zero_loses_its_weights_first():
    x = np.random.default_rng(0).normal(size=(20, 4))
    x[:, 2] = 0.0
    weights = np.array([[1.0], [1.0], [100.0], [1.0]])
    for prune in METHODS.values():
        layer = calibrated(weights, jnp.asarray(x, jnp.float32), sj.Unstructured(), 0.25)
        _, masks = prune(*layer)
        assert masks["kernel"][:, 0].tolist() == [True, True, False, True]


def test_wrong_operands_are_said():
    params, plan, calibration, x = random_layer(8, 4, sj.Unstructured(), 0.5)
    blocks = sj.plan(params, {"kernel": sj.Block(2, 1)}, sparsity=0.5)
    outputs = sj.plan(params, {"kernel": sj.NM(2, 4, axis=-1)}, sparsity=0.5)
    apply = lambda p, x: x @ p["kernel"]
    squares = sj.post.calibrate(apply, params, plan, [jnp.asarray(x, jnp.float32)], gram=False)
    thin = sj.post.calibrate(apply, params, plan, [jnp.ones((1, 8))])
    for wrong, message in (
        ((params, blocks, calibration), "needs Unstructured or NM along the inputs"),
        ((params, outputs, calibration), "along the inputs of the layer, got axis -1"),
        ((params, plan, squares), r"squares only; call calibrate\(..., gram=True\)"),
        ((params, plan, {}), "needs the inputs of kernel, the calibration has nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            sj.post.sparse_gpt(*wrong)
    with pytest.raises(ValueError, match="needs inputs of full rank"):
        sj.post.exact_obs(params, plan, thin, damping=0.0)
    with pytest.raises(ValueError, match="needs a block_size >= 1, got 0"):
        sj.post.sparse_gpt(params, plan, calibration, block_size=0)
