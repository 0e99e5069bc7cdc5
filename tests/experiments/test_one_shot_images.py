"""One-shot pruning of a trained classifier: nothing is trained after it, the plan is met."""

import dataclasses

import pytest

from experiments.runs.table import Job
from experiments.settings import one_shot_images
from tests.experiments.small_settings import SMALL_TRAINING


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The working folder whose pre-training all share."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", ["by_magnitude", "by_wanda", "by_sparse_gpt"])
def test_rows_prune_the_trained_network_in_one_shot(work, name):
    prepare = getattr(one_shot_images, name)
    for row in one_shot_images.one_shot_rows("x", prepare)[1:]:
        assert row.setting.steps == 0 and row.setting.prepare is prepare
        setting = dataclasses.replace(row.setting, pretraining=SMALL_TRAINING)
        folder = work / f"{name} {row.name}" / "seed0"
        result = setting.run(Job(0, False, None, folder, lambda done, total, numbers: None))
        assert result["zeros"] == result["planned_zeros"] > 0
        assert result["sparsity"] == pytest.approx(row.setting.sparsity, abs=0.01)
        assert 0.4 < result["accuracy"] <= 1.0
        assert result["history"] == []
