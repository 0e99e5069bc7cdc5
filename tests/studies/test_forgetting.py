"""MEST's economies: forgetting counts by hand, a source without easy examples, bytes by hand."""

import grain
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj


def test_forgetting_counts_by_hand():
    # Five examples over four epochs; 1 -> 0 counts.
    epochs = np.array([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 1]], bool)
    counts = sj.studies.no_forgetting(5)
    for right in epochs:
        for batch in (np.array([4, 0, 2]), np.array([3, 1])):
            counts = sj.studies.count_forgetting(counts, batch, right[batch])
    np.testing.assert_array_equal(counts.events, [0, 1, 2, 0, 0])
    np.testing.assert_array_equal(counts.learned, [1, 1, 1, 0, 1])
    # The third was never right and counts 4; the first and the last are unforgettable.
    np.testing.assert_array_equal(sj.studies.most_forgotten(counts, 2, 4), [1, 2, 3])
    np.testing.assert_array_equal(sj.studies.most_forgotten(counts, 4, 4), [3])
    with pytest.raises(ValueError, match=r"0\.\.5, got 6"):
        sj.studies.most_forgotten(counts, 6, 4)
    with pytest.raises(ValueError, match="num_examples >= 1"):
        sj.studies.no_forgetting(0)


def test_grain_reads_the_kept_examples():
    source = sj.studies.KeptExamples(np.arange(100, 110), np.array([1, 4, 7]))
    dataset = grain.MapDataset.source(source).seed(0).shuffle().repeat(2)
    assert len(source) == 3 and sorted(dataset[:3]) == [101, 104, 107] and len(dataset) == 6


def test_the_bytes_of_a_training_by_hand():
    params = {"kernel": jnp.zeros((8, 10)), "bias": jnp.zeros(10)}  # 320 and 40 bytes
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.9)  # 8 weights, 32 bytes
    memory = sj.reports.training_memory(params, plan, optax.adam(0.1))
    assert memory == sj.reports.TrainingMemory(weights=72, gradients=72, moments=144, indices=32)
    assert memory.total == 320
    soft = sj.reports.training_memory(params, plan, optax.sgd(0.1, momentum=0.9), peak=1.5)
    assert soft == sj.reports.TrainingMemory(weights=88, gradients=88, moments=88, indices=48)
    rigl = sj.reports.training_memory(params, plan, optax.sgd(0.1), dense_gradients=True)
    assert rigl == sj.reports.TrainingMemory(weights=72, gradients=360, moments=0, indices=32)
    blocks = sj.plan(params, {"kernel": sj.Block(5, 1)}, sparsity=0.75)  # 4 blocks of 5
    assert sj.reports.training_memory(params, blocks, optax.sgd(0.1)).indices == 16
    dense = sj.reports.training_memory(params, plan, optax.sgd(0.1), peak=float("inf"))
    assert dense.weights == 360
    with pytest.raises(ValueError, match="peak >= 1"):
        sj.reports.training_memory(params, plan, optax.sgd(0.1), peak=0.5)
