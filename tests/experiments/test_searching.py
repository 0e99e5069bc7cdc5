"""Searches as experiments: within their budget, resumed after Ctrl-C, with all trials kept."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.runs.table import Interrupted, Job
from experiments.settings.search_bits import SearchBits, uniform
from experiments.settings.search_blocks import Blocks, SearchBlocks
from experiments.settings.search_channels import SearchChannels
from experiments.settings.searching import ddpg, random_search, tpe
from sparsejax.search import WeightLayer, bit_search, weight_bytes
from tests.experiments.small_settings import SMALL_TRAINING


class ThreeLayers(nnx.Module):
    def __init__(self, image, classes, seed):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(int(np.prod(image)), 24, rngs=rngs)
        self.pointwise = nnx.Linear(24, 16, rngs=rngs)
        self.head = nnx.Linear(16, classes, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.first(x.reshape(len(x), -1)))
        return self.head(jax.nn.relu(self.pointwise(x)))


def three_layers(image, classes, seed):
    return ThreeLayers(image, classes, seed)


TRAINED = dataclasses.replace(SMALL_TRAINING, net=three_layers, prunable="pointwise/kernel")
LAYERS = [WeightLayer(name, 2, 2, 1, 1, 1, False, 4, 4, 2, 2) for name in "abc"]
SHORT = {"num_trials": 4, "steps": 3}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def job(work, name, report=lambda *_: None):
    return Job(0, False, None, work / name / "seed0", report)


def test_widths_are_searched_within_the_budget(work):
    results = {
        sampler: SearchChannels(sampler, TRAINED, limit=0.6, **SHORT).run(job(work, str(sampler)))
        for sampler in (None, random_search)
    }
    for sampler, result in results.items():
        assert result["multiply_adds_left"] == result["multiply_adds"] / 1_280 <= 0.6
        first, second = result["widths"]
        assert result["multiply_adds"] == 36 * first + first * second + 2 * second
        assert result["parameters"] == result["multiply_adds"] + first + second + 2
        assert ("trials" in result) == (sampler is not None)
    trials = results[random_search]["trials"]
    assert len(trials) == 4 and all(cost <= 0.6 * 1_280 for cost, _ in trials)


def test_bits_are_searched_within_the_budget_and_go_on_after_an_interruption(work):
    setting = SearchBits(ddpg, TRAINED, limit=0.8, **SHORT)

    def stop(done, total, numbers):
        if done == 2 and "cost" in numbers:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        setting.run(job(work, "bits", stop))
    seen = []
    result = setting.run(job(work, "bits", lambda done, total, _: seen.append(done)))
    assert seen[:2] == [3, 4]
    assert result["cost_left"] == pytest.approx(result["cost"] / (864 + 384 + 32))
    assert result["cost_left"] <= 0.8
    assert result["bits"][0] == result["bits"][2] == [8, 8]
    assert result["cost"] == 864 + 32 + 384 * result["bits"][1][0] / 8
    assert len(result["trials"]) == 4


def test_the_same_bits_everywhere_are_as_many_as_fit():
    own = bit_search(LAYERS, weight_bytes(LAYERS), limit=10.5)
    assert uniform(own) == {"a": (8, 8), "b": (5, 5), "c": (8, 8)}


def test_blocks_are_searched_for_a_device_that_a_model_stands_for(work):
    setting = SearchBlocks(tpe, TRAINED, trial_steps=2, **SHORT)
    result = setting.run(job(work, "blocks"))
    assert len(result["trials"]) == 4
    assert result["bits"] == result["chosen"][0]
    assert result["modelled_joules_mobile"] > 0 and result["modelled_seconds_fpga"] > 0
    half = SearchBlocks(None, TRAINED, fixed=Blocks(8, 4, 0.5, 0.5, 0.5), **SHORT)
    fixed = half.run(job(work, "fixed"))
    assert fixed["sparsity"] == 0.5 and "trials" not in fixed
