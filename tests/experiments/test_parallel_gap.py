"""Parallel grow-and-prune of a small classifier."""

import dataclasses

import jax
import numpy as np

import sparsejax as sj
from experiments.runs.table import Job
from experiments.settings.parallel_gap import ParallelGap
from tests.experiments.small_settings import SMALL_TRAINING


def test_each_copy_grows_its_part_and_the_end_is_at_the_target(tmp_path, monkeypatch):
    training = dataclasses.replace(
        SMALL_TRAINING, prunable="kernel", sparsity=0.5, allocate=sj.allocate.uniform, steps=12
    )
    ends = []
    train_from = type(training).train_from

    def spy(self, network, job):
        state, result = train_from(self, network, job)
        zeros = {x.shape: int((np.asarray(x) == 0).sum()) for x in jax.tree.leaves(state.params)}
        ends.append((zeros[36, 20], zeros[20, 2]))
        return state, result

    monkeypatch.setattr(type(training), "train_from", spy)
    job = Job(0, False, None, tmp_path / "seed0", lambda *_: None)
    result = ParallelGap(training, rounds=2).run(job)
    assert result["zeros"] == result["planned_zeros"] == 380
    # Parts are in the order of the params: the head comes first.
    assert ends[:3] == [(360, 0), (0, 20), (360, 0)] and ends[-1] == (360, 20)
    # Grown from zero: what feeds a dead unit has no gradient and stays there.
    assert ends[3][0] < 180 and ends[3][1] == 20
