"""Compression after a shared pre-training: few values, exact zeros, tied blocks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models import networks
from experiments.models.activations import PACT
from experiments.papers import kundu2023_r2, lin2021_unification
from experiments.recipes import quantized
from experiments.runs.table import Job
from experiments.settings.compress import Compress, distinct_values
from tests.experiments.small_settings import SMALL_TRAINING

PTQ = Compress(
    quantized.symmetric_2_bits,
    SMALL_TRAINING,
    steps=4,
    learning_rate=0.0,
    account=distinct_values,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The working folder that all settings of this file share, and so their pre-training."""
    return tmp_path_factory.mktemp("work")


def job(work, name):
    return Job(0, False, None, work / name / "seed0", lambda done, total, numbers: None)


def settings_of(paper):
    """One setting for each recipe of a paper, on the small network."""
    for row in paper.ROWS:
        if isinstance(row.setting, Compress):
            yield (
                row.setting.method.__name__,
                dataclasses.replace(row.setting, pretraining=SMALL_TRAINING, net=None, steps=8),
            )


def test_post_training_quantization_leaves_the_weights_but_for_their_grid(work, monkeypatch):
    result = PTQ.run(job(work, "first"))
    assert result["distinct_values"] == 2
    assert result["accuracy_before"] > 0.9 and result["accuracy"] > 0.5
    (file,) = (work / "pretrained").iterdir()
    stored = np.load(file)
    (weights,) = (stored[n] for n in stored.files if stored[n].shape == (36, 20))
    assert result["reach_before"] == pytest.approx(np.abs(weights).max() / weights.std(), rel=1e-5)
    kept = np.abs(weights) * 2 > np.abs(weights).max()
    assert result["zeros"] == np.sum(~kept)
    # A second setting takes the stored variables: its recipe starts from them.
    seen = {}

    def spy(tx, setup):
        seen["params"] = setup.params
        return quantized.symmetric_2_bits(tx, setup)

    second = dataclasses.replace(PTQ, method=spy)
    again = second.run(job(work, "second"))
    assert again["fingerprint"] == result["fingerprint"]
    shapes = {leaf.shape: leaf for leaf in jax.tree.leaves(seen["params"])}
    np.testing.assert_array_equal(shapes[36, 20], weights)


QUANTIZERS = dict(settings_of(kundu2023_r2))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_every_quantizer_of_the_table_ends_on_its_grid(name, work):
    result = QUANTIZERS[name].run(job(work, name))
    levels = 2 if "1_bit" in name else 4
    assert result["distinct_values"] <= levels
    assert result["accuracy"] > 0.4


UNIFIERS = dict(settings_of(lin2021_unification))


@pytest.mark.parametrize("name", UNIFIERS)
def test_every_unification_ends_with_its_blocks(name, work):
    setting = dataclasses.replace(UNIFIERS[name], sparsity=0.4, steps=20)
    result = setting.run(job(work, name))
    assert result["num_pruned"] == round(0.4 * 9 * 5)
    assert result["zeros"] == result["planned_zeros"] == 18 * 16
    kept = 45 - 18
    assert result["num_unified"] == (round(0.8 * kept) if "unified" in name else 0)
    bits = result["num_unified"] * 48 + result["num_free"] * 512 + 45 * 2
    assert result["bits_ratio"] == pytest.approx(bits / (720 * 32))


def test_matched_bits_of_the_unification_table():
    half = lin2021_unification.bits_ratio(0.5, 0.8)
    assert half == pytest.approx(0.5 * (0.8 * 48 + 0.2 * 512) / 512 + 2 / 512)
    alone = lin2021_unification.pruned_for(half)
    assert (1 - alone) + 2 / 512 == pytest.approx(half, abs=1e-3)


def test_pact_networks_have_one_limit_for_each_activation_and_round_to_four_levels():
    make = networks.mobilenet_v1_quarter_pact
    module = nnx.eval_shape(lambda: make((28, 28, 1), 10, 0))
    limits = [path for path, _ in sj.tree.leaves_with_paths(nnx.state(module, nnx.Param))]
    assert sum(path.endswith("limit") for path in limits) == 1 + 2 * 13
    activation = PACT(2)
    x = jnp.linspace(-1.0, 8.0, 50)
    np.testing.assert_allclose(np.unique(activation(x)), [0, 2 / 3, 4 / 3, 2], rtol=1e-6)
    slope = nnx.grad(lambda module: module(x).sum())(activation)
    assert float(slope.limit[...]) == np.sum(np.asarray(x) >= 2)
