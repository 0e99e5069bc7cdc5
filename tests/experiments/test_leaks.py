"""Networks of eight families, and the attack's rows on features that are known."""

from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import sparsejax as sj
from experiments.models.block_families import (
    FAMILIES,
    BlockNet,
    Skeleton,
    grouped,
    random_skeleton,
    random_weights,
)
from experiments.runs.table import Job
from experiments.settings import leaks

SMALL = Skeleton((16, 32), (1, 2))
IMAGE = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
JOB = Job(0, True, None, Path(), lambda *_: None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_networks_take_larger_images_than_they_were_made_for(family):
    net = BlockNet(Skeleton((8,) * 5, (2,) * 5), family, FAMILIES[family][0])
    small, large = (jax.ShapeDtypeStruct((1, side, side, 3), np.float32) for side in (8, 64))
    variables = jax.eval_shape(net.init, jax.random.key(0), small)
    assert jax.eval_shape(net.apply, variables, large).shape == (1, 10)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_each_setting_is_another_network(family):
    counts = set()
    for setting in FAMILIES[family]:
        net = BlockNet(SMALL, family, setting)
        logits, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), IMAGE)
        assert logits.shape == (2, 10)
        counts.add(sum(leaf.size for leaf in jax.tree.leaves(variables["params"])))
    assert len(counts) == len(FAMILIES[family])


def test_skeletons_differ_and_double_where_they_stride():
    found = {random_skeleton(np.random.default_rng(seed)) for seed in range(8)}
    assert len(found) == 8
    for channels, strides in found:
        assert 3 <= len(channels) == len(strides) <= 6
        grown = np.divide(channels[1:], channels[:-1])
        assert all(factor in (1, stride) for factor, stride in zip(grown, strides[1:], strict=True))


def test_kernels_have_the_zeros_asked_for():
    weights = random_weights(BlockNet(SMALL, grouped, 4), IMAGE, 0, sparsity=0.9)
    kernels = np.concatenate([w.ravel() for w in jax.tree.leaves(weights) if w.ndim > 1])
    assert np.mean(kernels == 0) == pytest.approx(0.9, abs=0.02)
    assert all((w != 0).all() for w in jax.tree.leaves(weights) if w.ndim == 1)


@pytest.fixture
def watched(monkeypatch):
    """Features without compiling: the family's and setting's number; compiled, nothing."""

    def function(net, seed, way):
        return net, way

    def seen(run, sees):
        net, way = run
        families = [*FAMILIES, grouped]
        place = 0 if way.compiled else families.index(net.family)
        return {"family": 10.0 * place, "setting": float(net.setting) * (not way.compiled)}

    monkeypatch.setattr(sj.audit.attack, "_forest", lambda *_: KNeighborsClassifier(1))
    monkeypatch.setattr(leaks, "function", function)
    monkeypatch.setattr(leaks, "_seen", seen)
    leaks.observed.cache_clear()
    yield
    leaks.observed.cache_clear()


def test_what_is_hidden_is_told_by_chance(watched):
    told = leaks.Leaks("program").run(JOB)
    assert told["accuracy"] == 1.0 and told["chance"] == 1 / 8 and told["setting_chance"] == 1 / 3
    assert "transferred" not in told
    hidden = leaks.Leaks("program", compiled=True).run(JOB)
    assert hidden["accuracy"] <= 1 / 8 and hidden["transferred"] == 1 / 8


def test_hardening_is_within_its_budget(watched, monkeypatch):
    adds = {1: 100, 2: 110, 4: 120, 8: 140, 16: 180}
    monkeypatch.setattr(
        leaks, "_multiply_adds", lambda net: adds[net.setting if net.family is grouped else 1]
    )
    result = leaks.Hardening("program").run(JOB)
    assert result["taken"] in ("2", "4") and result["hidden"] > 0.5
    assert result["multiply_adds"] == {"2": 1.1, "4": 1.2, "8": 1.4, "16": 1.8}
    assert list(result["confidence"]) == ["1", "2", "4", "8", "16"]
