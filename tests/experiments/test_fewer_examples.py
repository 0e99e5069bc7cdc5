"""A training that leaves examples out half-way: which ones, and what the rest sees."""

import dataclasses

import numpy as np
import pytest

import sparsejax as sj
from experiments.runs.table import Job
from experiments.settings import classify, fewer_examples
from experiments.settings.fewer_examples import FewerExamples, any_others, most_forgotten
from tests.experiments.small_settings import SMALL_TRAINING

EPOCH = 400 // 16
TRAINING = dataclasses.replace(SMALL_TRAINING, steps=4 * EPOCH)


def job(folder):
    return Job(0, False, None, folder, lambda *_: None)


@pytest.fixture
def seen(monkeypatch):
    """The data sets that batches were drawn from, and the counts that decided."""
    datasets, counts, real = [], [], classify.batches

    def spy_batches(dataset, **options):
        datasets.append(dataset)
        return real(dataset, **options)

    def choose(found, num_removed, num_epochs, seed):
        counts.append((found, num_epochs))
        return most_forgotten(found, num_removed, num_epochs, seed)

    monkeypatch.setattr(classify, "batches", spy_batches)
    return datasets, counts, choose


def test_the_least_forgotten_are_left_out_after_some_epochs(tmp_path, seen):
    datasets, counts, choose = seen
    result = FewerExamples(TRAINING, choose, num_epochs=2, removed=0.25).run(job(tmp_path))
    ((found, num_epochs),) = counts
    assert num_epochs == 2 and result["kept_examples"] == 300
    kept = sj.studies.most_forgotten(found, 100, 2)
    everything, fewer = datasets[:2]
    assert len(everything.train_labels) == 400
    np.testing.assert_array_equal(fewer.train_images, everything.train_images[kept])
    np.testing.assert_array_equal(fewer.train_labels, everything.train_labels[kept])
    assert result["accuracy"] > 0.9 and found.learned.mean() > 0.8
    assert result["history"][-1]["step"] == 4 * EPOCH


def test_counts_are_those_of_the_epochs_ends(tmp_path, monkeypatch):
    rights = [np.arange(400) % 2 == 0, np.arange(400) % 4 == 0]
    monkeypatch.setattr(
        fewer_examples, "_judge", lambda *_: lambda state: rights[int(state.step) // EPOCH - 1]
    )
    found = []

    def choose(counts, num_removed, num_epochs, seed):
        found.append(counts)
        return np.arange(num_removed, 400)

    FewerExamples(TRAINING, choose, num_epochs=2).run(job(tmp_path))
    np.testing.assert_array_equal(found[0].events, np.arange(400) % 4 == 2)
    np.testing.assert_array_equal(found[0].learned, np.arange(400) % 2 == 0)


def test_random_examples_depend_on_the_seed_alone():
    counts = sj.studies.no_forgetting(100)
    first, again, other = (any_others(counts, 24, 7, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first)) == 76 and not np.array_equal(first, other)
