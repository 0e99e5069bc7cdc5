"""Recurrent networks: a GRU that runs packed, ranks of FastGRNN, and the watch's sequences."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from experiments.data import sequences
from experiments.models.recurrent import GRU, FastGRNN, fastgrnn_80, gru_128, with_packed
from experiments.papers import gupta2022_fastgrnn, niu2021_grim
from experiments.recipes.blocks import bcr_admm, bcr_reweighted, one_shot_half_way
from experiments.runs.table import Job
from experiments.settings import recurrent
from experiments.settings.classify import Classify


def recordings(seed=0):
    """Four recordings of two classes that differ in their frequency, of subjects 1, 2 and 8."""
    rng = np.random.default_rng(seed)
    time = np.arange(250)[:, None]
    signal = lambda rate: np.sin(rate * time + rng.uniform(0, 6, 6)) * np.arange(1, 7)
    labels, subjects = np.array([0, 1, 0, 1]), np.array([1, 2, 8, 8])
    return [signal(0.1 + 0.4 * label) for label in labels], labels, subjects


def tiny_watch(folder):
    return sequences.split(*recordings())


def tiny_gru(image, classes, seed):
    return GRU(image[1], 16, classes, rngs=nnx.Rngs(seed))


def test_windows_are_split_by_subject_and_standardised():
    data = tiny_watch(None)
    assert data.train_images.shape == (8, 100, 6) and data.test_images.shape == (8, 100, 6)
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_allclose(data.train_images.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(data.train_images.std((0, 1)), 1, rtol=1e-5)
    whole = recordings()[0][0]
    scale = (whole[50:150, 0] / data.train_images[1, :, 0])[:5]  # the second window begins at 50
    assert np.ptp(scale) < 0.5 * np.abs(scale).max()


def test_only_arrays_are_unpickled(tmp_path):
    content = {"X": [np.ones((3, 2))], "y": np.array([1])}
    np.save(tmp_path / "good.npy", np.array(content, dtype=object), allow_pickle=True)
    np.save(tmp_path / "bad.npy", np.array({"X": pytest.raises}, dtype=object), allow_pickle=True)
    loaded = sequences._unpickled((tmp_path / "good.npy").read_bytes())
    np.testing.assert_array_equal(loaded["X"][0], np.ones((3, 2)))
    with pytest.raises(pickle.UnpicklingError, match="no place in an array"):
        sequences._unpickled((tmp_path / "bad.npy").read_bytes())


def test_a_gru_by_numpy():
    model = tiny_gru((0, 3, 1), 2, 0)
    x = np.random.default_rng(0).normal(size=(2, 7, 3, 1)).astype(np.float32)
    kernels = [np.asarray(part.kernel[...], float) for part in (model.input, model.recurrent)]
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    state = np.zeros((2, 16))
    for t in range(7):
        gates = np.split(x[:, t, :, 0] @ kernels[0], 3, -1)
        own = np.split(state @ kernels[1], 3, -1)
        update = sigmoid(gates[1] + own[1])
        new = np.tanh(gates[2] + sigmoid(gates[0] + own[0]) * own[2])
        state = update * state + (1 - update) * new
    logits = state @ np.asarray(model.head.kernel[...], np.float64)
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-5)


def test_fastgrnn_by_numpy():
    model = FastGRNN(3, 8, 2, input_rank=2, recurrent_rank=4, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 1)).astype(np.float32)
    w, u = (
        np.asarray(a.kernel[...] @ b.kernel[...], np.float64)
        for a, b in ((model.input1, model.input2), (model.recurrent1, model.recurrent2))
    )
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    state = np.zeros((2, 8))
    for t in range(5):
        both = x[:, t, :, 0] @ w + state @ u
        gate = sigmoid(both + 1)
        state = (sigmoid(1) * (1 - gate) + sigmoid(-4)) * np.tanh(both + 1) + gate * state
    logits = state @ np.asarray(model.head.kernel[...], np.float64)
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-5)


def test_parameter_counts():
    count = lambda net: sum(a.size for a in jax.tree.leaves(nnx.state(net((100, 6, 1), 7, 0))))
    assert count(gru_128) == 6 * 384 + 384 + 128 * 384 + 384 + 128 * 7 + 7
    assert count(fastgrnn_80) == 36 + 480 + 6400 + 6400 + 160 + 2 + 567


PATTERN = sj.BlockColumnRow(4, 8, kept_rows=2)
SMALL = Classify(
    bcr_admm,
    0.75,
    net=tiny_gru,
    data=tiny_watch,
    prunable="recurrent/kernel",
    pattern=PATTERN,
    allocate=sj.allocate.uniform,
    steps=10,
    batch_size=4,
)


@pytest.mark.parametrize("recipe", [bcr_admm, bcr_reweighted])
def test_a_trained_gru_runs_packed(recipe, tmp_path):
    setting = recurrent.PackedGRU(dataclasses.replace(SMALL, method=recipe))
    result = setting.run(Job(0, False, None, tmp_path, lambda *_: None))
    assert result["zeros"] == result["planned_zeros"] == 0.75 * 16 * 48
    assert result["relative_error"] < 1e-5
    assert result["accuracy"] == result["dense_accuracy"]
    assert result["packed_bytes"] < result["dense_bytes"]


def test_the_packed_product_is_a_custom_call_in_the_loop():
    model = tiny_gru((0, 6, 1), 2, 0)
    run = with_packed(model, PATTERN.pack(np.asarray(model.recurrent.kernel[...])))
    text = jax.jit(run).lower(jnp.ones((2, 10, 6, 1))).as_text()
    assert "sparsejax.bcr.v1" in text and "while" in text


def test_the_columns_with_the_least_sums_go_and_their_ranks_with_them():
    model = FastGRNN(6, 8, 2, input_rank=6, recurrent_rank=8, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    rules = {"input1/kernel": (sj.Channel(), 0.0), "recurrent1/kernel": (sj.Channel(), 0.75)}
    plan = sj.plan(params, rules)
    tx = sj.sparsify(optax.sgd(0.0), sj.one_shot(0), plan, key=jax.random.key(0))
    updates, _ = tx.update(params, tx.init(params), params)
    pruned = optax.apply_updates(params, updates)
    before, after = (np.asarray(p["recurrent1"]["kernel"][...]) for p in (params, pruned))
    kept = np.sort(np.argsort(np.abs(before).sum(0))[-2:])
    np.testing.assert_array_equal(np.flatnonzero(after.any(0)), kept)
    small = FastGRNN(6, 8, 2, input_rank=6, recurrent_rank=2, rngs=nnx.Rngs(1))
    for name in ("input1", "input2", "head"):
        nnx.update(getattr(small, name), nnx.state(getattr(model, name)))
    small.recurrent1.kernel[...] = after[:, kept]
    small.recurrent2.kernel[...] = model.recurrent2.kernel[...][kept]
    x = np.random.default_rng(0).normal(size=(3, 5, 6, 1)).astype(np.float32)
    np.testing.assert_allclose(nnx.merge(graph, pruned)(x), small(x), rtol=1e-4, atol=1e-5)


def test_the_rows_plan_the_ranks():
    row = next(row for row in gupta2022_fastgrnn.ROWS if row.name == "pruned to (5, 7)")
    assert row.setting.method is one_shot_half_way
    params = nnx.split(fastgrnn_80((100, 6, 1), 7, 0))[1]
    rules = {row.setting.prunable: row.setting.pattern}
    plan = sj.plan(params, rules, sparsity=0.5, allocate=row.setting.allocate)
    assert [leaf.num_weights - leaf.num_pruned for leaf in plan.leaves] == [30, 560]


def test_product_latency_runs(tmp_path):
    setting = next(row.setting for row in niu2021_grim.ROWS if row.name.startswith("product"))
    small = dataclasses.replace(setting, hidden=64)
    result = small.run(Job(0, True, None, tmp_path, lambda *_: None))
    ratio = result["dense_us"] / result["packed_us"]
    np.testing.assert_allclose(result["speedup"], ratio)
    assert result["packed_bytes"] < result["csr_bytes"] < result["dense_bytes"]
