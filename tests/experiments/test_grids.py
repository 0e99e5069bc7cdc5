"""The grids' protocol: validation images, SGD, and what is counted of a pruned network."""

import numpy as np
import pytest

from experiments.data.datasets import crop_and_mirror
from experiments.data.full_size import padded, with_validation
from experiments.papers import grids, suite
from experiments.runs.table import Job
from experiments.settings.classify import Classify
from tests.experiments.small_settings import bright_half, gmp, small_net


def validated_halves(folder):
    return with_validation(bright_half(folder), 80)


def test_validation_images_are_always_the_same_and_none_to_train():
    whole, (first, second) = bright_half(None), (validated_halves(None) for _ in range(2))
    assert len(first.train_labels) == 320 and len(first.validation_labels) == 80
    np.testing.assert_array_equal(first.validation_images, second.validation_images)
    both = np.concatenate([first.train_images, first.validation_images])
    order = lambda images: np.unique(images.reshape(len(images), -1), axis=0)
    np.testing.assert_array_equal(order(both), order(whole.train_images))
    np.testing.assert_array_equal(first.on_the_way.test_images, first.validation_images)
    assert whole.on_the_way is whole


def test_grey_images_are_padded_and_moved():
    dataset = padded(bright_half(None))
    assert dataset.train_images.shape == (400, 10, 10) and not dataset.train_images[:, :2].any()
    images = np.zeros((50, 10, 10), np.uint8)
    images[:, 5, 5] = 1
    moved = crop_and_mirror(images, np.random.default_rng(0))
    places = {tuple(place) for place in np.argwhere(moved)[:, 1:]}
    assert moved.shape == images.shape and moved.sum() == 50 and len(places) > 20


def test_a_training_by_sgd_looks_at_the_test_once_and_counts_what_is_left(tmp_path):
    setting = Classify(
        gmp,
        0.9,
        net=small_net,
        data=validated_halves,
        prunable="hidden/kernel",
        steps=24,
        batch_size=16,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        clip_norm=float("inf"),
    )
    result = setting.run(Job(0, False, None, tmp_path, lambda *_: None))
    assert result["accuracy"] > 0.8 and result["test_images"] == 200
    for entry in result["history"]:
        assert "validation_accuracy" in entry and "test_accuracy" not in entry
    assert result["smallest_density"] == pytest.approx(0.1) and result["dead_weights"] == 0
    assert result["multiply_adds"] == 720 + 40
    assert result["multiply_adds_left"] == pytest.approx((72 + 40) / 760)
    rates = setting.dense_optimizer(240).schedule
    assert float(rates(0)) == 0.0 and float(rates(10)) == pytest.approx(0.1)
    assert float(rates(240)) == pytest.approx(0.0, abs=1e-8)


def test_all_does_not_run_the_grids():
    assert not [paper for paper in suite.find(("all",)) if paper in grids.GRIDS]
    assert suite.find(("grid_mobilenet_98",)) == [grids.GRIDS[2]]
    settings = [row.setting for paper in grids.GRIDS for row in paper.ROWS]
    assert {setting.steps for setting in settings} == {3_375, 10_125, 30_375, 84_375}
    for paper in grids.GRIDS[2:]:
        named = [(row.name, row.setting.allocate.__name__) for row in paper.ROWS]
        assert all(rule == "uniform" for name, rule in named if "uniform" in name)
        assert all(rule == "erk" for name, rule in named if "ERK" in name)


def test_a_ladder_has_the_grids_rows_at_each_length():
    ladder, grid = grids.GRIDS[-1], suite.find(("grid_mobilenet_98",))[0]
    names = {row.name: row.setting for row in grid.ROWS}
    for row in ladder.ROWS:
        name, epochs = row.name.removesuffix(" epochs").rsplit(", ", 1)
        assert row.setting.steps == int(epochs) * grids.TRAIN_IMAGES // grids.BATCH
        if int(epochs) == grids.EPOCHS:  # and so the records are shared
            assert row.setting == names[name]
    assert len({row.setting for row in ladder.ROWS}) == len(ladder.ROWS) == 21
