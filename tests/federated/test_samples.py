"""Who gets which samples: few classes a client, nobody twice, padded to one length."""

import jax
import numpy as np
import pytest

import sparsejax as sj

LABELS = np.random.default_rng(0).integers(0, 10, 997)


def parts_of(k, seed=0, num_clients=10):
    key = jax.random.key(seed)
    return sj.federated.class_partition(LABELS, num_clients, classes_per_client=k, key=key)


@pytest.mark.parametrize("k", [1, 2, 4, 10])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_client_has_k_classes_and_no_sample_has_two_clients(k, seed):
    parts = parts_of(k, seed)
    assert [len({*LABELS[part]}) for part in parts] == [k] * 10
    given = np.concatenate(parts)
    assert len({*given}) == len(given)
    # All samples of a label that somebody drew are given to somebody.
    drawn = {*LABELS[given]}
    assert len(given) == sum(label in drawn for label in LABELS)


def test_holders_of_a_label_get_equal_parts_and_the_last_what_is_over():
    parts = parts_of(10, num_clients=3)
    for label in range(10):
        sizes = [int((LABELS[part] == label).sum()) for part in parts]
        each, over = divmod(np.count_nonzero(np.equal(LABELS, label)), 3)
        assert sizes == [each, each, each + over]


def test_equal_keys_give_equal_partitions_whatever_their_make():
    same = sj.federated.class_partition(
        LABELS, 10, classes_per_client=2, key=jax.random.key_data(jax.random.key(0))
    )
    assert [part.tolist() for part in parts_of(2)] == [part.tolist() for part in same]
    assert any(len(a) != len(b) for a, b in zip(parts_of(2), parts_of(2, 1), strict=True))


def test_samples_of_a_client_come_first_and_zeros_behind():
    samples = {"x": np.arange(8.0).reshape(4, 2), "y": np.arange(4, dtype=np.uint8)}
    clients = sj.federated.stack_clients(samples, [[3, 1], [], [0]], length=3)
    assert clients.num_samples.tolist() == [2, 0, 1]
    assert clients.samples["y"].tolist() == [[3, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert clients.samples["x"][0].tolist() == [[6, 7], [2, 3], [0, 0]]
    assert clients.samples["y"].dtype == np.uint8


def test_what_cannot_be_divided_is_said():
    with pytest.raises(ValueError, match="between 1 and 10 classes for each, got 10 clients and"):
        parts_of(11)
    with pytest.raises(ValueError, match="a length of at least 2, got 1 clients and length 1"):
        sj.federated.stack_clients(np.arange(3), [[0, 1]], length=1)
    with pytest.raises(ValueError, match="got 0 clients"):
        sj.federated.stack_clients(np.arange(3), [])
