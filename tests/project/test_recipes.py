"""The diffs of the recipes page run, as the program that they end at."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.fixture(scope="module")
def world():
    """The names that the page's programs make, one after the other."""
    names: dict[str, object] = {}
    text = PAGE.read_text()
    blocks = re.findall(r"^```(diff|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```") / 2
    for kind, block in blocks:
        if kind == "diff":
            lines = [line for line in block.splitlines() if not line.startswith("-")]
            assert all(line[:1] in ("", " ", "+") for line in lines)
            block = "\n".join(line[1:] for line in lines)
        exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_after_the_diffs_run(world):
    assert {"train_step", "nnx_step", "eqx_step", "gru_step", "vit_step", "epoch"} <= world.keys()


def test_the_keras_recipe_trains_sparse(world):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="keras is not installed")
    if keras.backend.backend() != "jax":
        pytest.skip("keras does not run on JAX here")
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((8,)), dense(20, name="body"), dense(2, name="head")])
    x = np.random.default_rng(0).normal(size=(160, 8)).astype(np.float32)
    report = world["sparse_fit"](model, x, x[:, :2], epochs=3)
    assert report.planned.sparsity == 0.9 and not report.findings
    assert np.sum(np.asarray(model.get_layer("body").kernel) == 0.0) == 144
