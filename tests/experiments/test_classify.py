"""A classifier's result is that of hard masks at the exact sparsity, and resumes bit for bit."""

import dataclasses

import pytest

import sparsejax as sj
from experiments.papers import suite
from experiments.runs.table import Job
from experiments.settings.classify import Classify
from tests.experiments.small_settings import (
    bright_half,
    gmp,
    gmp_straight_through,
    looks_at_everything,
    small_net,
)

SMALL = Classify(
    gmp,
    0.9,
    net=small_net,
    data=bright_half,
    prunable="hidden/kernel",
    steps=24,
    batch_size=16,
    learning_rate=2e-2,
)


def job(folder, stop_at=None):
    def report(done, total, numbers):
        assert total in (20, 24) and {"loss", "accuracy"} <= set(numbers)
        if done == stop_at:
            raise KeyboardInterrupt

    return Job(0, False, None, folder, report)


def test_the_result_has_the_exact_sparsity(tmp_path):
    result = SMALL.run(job(tmp_path))
    assert result["zeros"] == result["planned_zeros"] == round(0.9 * 36 * 20)
    assert result["prunable"] == 720 and result["parameters"] == 720 + 20 + 40 + 42
    assert result["accuracy"] > 0.8 and result["test_images"] == 200
    assert [entry["step"] for entry in result["history"]] == [5, 10, 15, 20, 24]
    assert result["ms_per_step"] > 0
    assert result["sparsity_of_all"] < result["sparsity"] == result["zeros"] / 720


def test_soft_training_is_tested_with_hard_masks(tmp_path):
    setting = dataclasses.replace(SMALL, method=gmp_straight_through)
    result = setting.run(job(tmp_path))
    assert result["zeros"] == result["planned_zeros"] == 648
    assert result["accuracy"] > 0.8


def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path):
    whole = SMALL.run(job(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        SMALL.run(job(tmp_path / "parts", stop_at=17))
    parts = SMALL.run(job(tmp_path / "parts"))
    assert parts["fingerprint"] == whole["fingerprint"]
    assert parts["history"] == whole["history"]


def test_a_recipe_may_look_at_data_loss_and_curvature(tmp_path):
    smoke = job(tmp_path)._replace(smoke=True)
    result = dataclasses.replace(SMALL, method=looks_at_everything).run(smoke)
    assert result["zeros"] == 648
    assert result["history"][-1]["step"] == 20


# Methods whose thresholds are trained or whose sparsity follows from a penalty.
FREE = {"str_", "str_uncut", "soft_movement_uncut"}


def fits(pattern):
    """Whether the tiny net's layer can have the pattern: it has no 3x3 kernels."""
    try:
        pattern.validate((36, 20))
    except ValueError:
        return False
    return True


def recipes():
    """One setting of each method and one of each pattern: the laws have all pairs of them."""
    seen = set()
    for setting in (row.setting for paper in suite.PAPERS for row in paper.ROWS):
        if isinstance(setting, Classify) and fits(setting.pattern):
            if not {setting.method, setting.pattern} <= seen:
                yield pytest.param(setting, id=f"{setting.method.__name__}-{setting.pattern}")
            seen |= {setting.method, setting.pattern}


@pytest.mark.parametrize("setting", list(recipes()))
def test_every_recipe_of_the_papers_trains_and_meets_its_target(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(sj.training.Checkpoints, "save", lambda *args, **options: None)
    options = {"net": small_net, "data": bright_half, "prunable": "hidden/kernel"}
    result = dataclasses.replace(SMALL, **options, **own(setting)).run(job(tmp_path))
    assert result["accuracy"] > 0.4
    planned = result["planned_zeros"]
    if setting.method.__name__ not in FREE:
        assert result["history"][-1]["sparsity"] == pytest.approx(planned / 720, abs=1e-6)
        assert result["zeros"] >= planned  # a weight that has just grown may still be zero


def own(setting):
    return {"method": setting.method, "pattern": setting.pattern, "sparsity": setting.sparsity}
