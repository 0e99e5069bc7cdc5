"""Lottery tickets of a small classifier, at once and in rounds."""

import jax
import numpy as np
import pytest

from experiments.runs.table import Job
from experiments.settings.tickets import Tickets, original, pruned, random_weights
from tests.experiments.small_settings import SMALL_TRAINING


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The working folder whose pre-training all share."""
    return tmp_path_factory.mktemp("work")


def spied_trainings(monkeypatch):
    """Where each training began: the weights it was given."""
    begun = []
    train_from = type(SMALL_TRAINING).train_from

    def spy(self, network, job):
        begun.append({leaf.shape: np.asarray(leaf) for leaf in jax.tree.leaves(network.params)})
        return train_from(self, network, job)

    monkeypatch.setattr(type(SMALL_TRAINING), "train_from", spy)
    return begun


@pytest.mark.parametrize("start", [original, random_weights, pruned])
def test_the_second_training_begins_where_it_should(work, start, monkeypatch):
    begun = spied_trainings(monkeypatch)
    job = Job(0, False, None, work / start.__name__ / "seed0", lambda *_: None)
    result = Tickets(start, SMALL_TRAINING, sparsity=0.75).run(job)
    assert result["zeros"] == result["planned_zeros"] == 540
    assert result["accuracy_dense"] > 0.9 and result["accuracy"] > 0.6
    initial, redrawn = (
        {leaf.shape: np.asarray(leaf) for leaf in jax.tree.leaves(SMALL_TRAINING.start(at).params)}
        for at in (job, job._replace(seed=10_000))
    )
    kernel = begun[-1][36, 20]
    kept = kernel != 0
    assert np.sum(~kept) == 540
    agrees = [np.array_equal(kernel[kept], other[36, 20][kept]) for other in (initial, redrawn)]
    assert agrees == [start is original, start is random_weights]


def test_rounds_start_over_from_the_initial_weights_with_ever_fewer(work, monkeypatch):
    begun = spied_trainings(monkeypatch)
    job = Job(0, False, None, work / "rounds" / "seed0", lambda *_: None)
    result = Tickets(original, SMALL_TRAINING, sparsity=0.75, rounds=2).run(job)
    one, last = (weights[36, 20] for weights in begun[-2:])
    assert (np.sum(one == 0), np.sum(last == 0)) == (360, 540) and result["zeros"] == 540
    assert np.all(last[one == 0] == 0), "what a round prunes stays pruned"
    np.testing.assert_array_equal(last[last != 0], one[last != 0])
