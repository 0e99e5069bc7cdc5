"""Wanda: worked by hand, and against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests.algorithms.calibrated_layers import calibrated, random_layer


def test_wanda_by_hand():
    # ||x_j|| = 5, 1, 2; |w| * ||x|| = [[10, 5], [3, 1], [6, 8]]: of each column the lowest goes.
    x = jnp.array([[3.0, 1.0, 0.0], [4.0, 0.0, 2.0]])
    weights = [[2.0, -1.0], [-3.0, 1.0], [3.0, 4.0]]
    params, plan, calibration = calibrated(weights, x, sj.Unstructured(), 1 / 3)
    masks = sj.post.wanda(calibration)(params, plan)
    assert masks["kernel"].tolist() == [[True, True], [False, False], [True, True]]
    assert not sj.scores.magnitude(params["kernel"], None, None)[0, 1] > 1, (
        "|w| alone would take w_01"
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.77, 0.99])
def test_wanda_compares_within_each_output(sparsity):
    params, plan, calibration, x = random_layer(12, 7, sj.Unstructured(), sparsity)
    masks = sj.post.wanda(calibration)(params, plan)
    mask = np.asarray(masks["kernel"])
    scores = np.abs(np.asarray(params["kernel"])) * np.linalg.norm(x, axis=0)[:, None]
    counts = (~mask).sum(0)
    assert counts.sum() == plan.num_pruned
    assert counts.max() - counts.min() <= 1
    for own, kept in zip(scores.T, mask.T, strict=True):
        assert own[~kept].max(initial=0.0) <= own[kept].min(initial=np.inf)


def test_wanda_ranks_groups_of_n_of_m_and_blocks():
    for pattern, sparsity in ((sj.NM(2, 4), 0.5), (sj.Block(4, 1), 0.5)):
        params, plan, calibration, _ = random_layer(8, 12, pattern, sparsity)
        mask = sj.post.wanda(calibration)(params, plan)["kernel"]
        norms = np.sqrt(calibration["kernel"].squares[0])[:, None]
        wanted = pattern.mask(jnp.abs(params["kernel"]) * norms.astype(np.float32), sparsity)
        np.testing.assert_array_equal(mask, wanted)
        pattern.check(mask)


def test_a_training_goes_on_from_wandas_masks():
    params, plan, calibration, _ = random_layer(8, 6, sj.Unstructured(), 0.5)
    tx = sj.sparsify(
        optax.sgd(0.1),
        sj.gmp(0, 2, every=1),
        plan,
        key=jax.random.key(0),
        initial_masks=sj.post.wanda(calibration),
    )
    state = jax.jit(tx.init)(params)
    updates, state = tx.update(params, state, params)
    np.testing.assert_array_equal(
        optax.apply_updates(params, updates)["kernel"] != 0,
        sj.post.wanda(calibration)(params, plan)["kernel"],
    )


def test_a_calibration_without_the_leaf_is_said():
    params, plan, *_ = random_layer(8, 4, sj.Unstructured(), 0.5)
    with pytest.raises(ValueError, match="wanda needs the inputs of kernel"):
        sj.post.wanda({})(params, plan)
