"""The README's lines run as they stand, and its table says what is so."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import sparsejax as sj

README = Path(__file__).parents[2] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("start", [0, 400], ids=["at first", "again"])
def test_the_quickstart_runs_as_pasted(start, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    quickstart = blocks()[0]
    assert len([line for line in quickstart.splitlines() if line]) <= 44
    names = {}
    exec(compile(quickstart, "README.md", "exec"), names)
    assert names["start"] == start
    plan = names["plan"]
    weights = dict(sj.tree.leaves_with_paths(names["params"]))
    pruned = sum(np.sum(np.asarray(weights[leaf.path]) == 0.0) for leaf in plan.leaves)
    assert plan.get("params/layers_4/kernel") is None
    assert pruned == plan.num_pruned == round(0.9 * plan.num_weights)
    said = capsys.readouterr().out
    assert "layers_2" in said
    assert float(said.rpartition("right: ")[2]) > 0.9
    if start:  # what follows needs a trained network
        exec(compile(blocks()[1], "README.md", "exec"), names)
        small, x = names["small"], names["x"][:3]
        assert small.params["params"]["layers_0"]["kernel"].shape == (256, 256)
        found = sj.load(folder / "net.sjx")(x)
        np.testing.assert_allclose(found, small.apply(small.params, x), rtol=1e-3, atol=1e-4)


def test_the_readmes_own_method_is_one():
    names = {"sj": sj}
    exec(compile(blocks()[2], "README.md", "exec"), names)
    assert isinstance(names["my_method"](100), sj.masks.MaskTransform)


def test_compiled_functions_are_exported_as_the_table_says():
    weights = jnp.where(jnp.arange(64) % 8 == 0, 1.0, 0.0).reshape(8, 8)
    fast = jax.jit(sj.compile(lambda w, x: x @ w, weights, jnp.ones((2, 8)), tune=False))
    with pytest.raises(ValueError, match=r"sparsejax\.program\.v1"):
        export.export(fast)(jnp.ones((2, 8)))
    allowed = [export.DisabledSafetyCheck.custom_call("sparsejax.program.v1")]
    stored = export.export(fast, disabled_checks=allowed)(jnp.ones((2, 8))).serialize()
    again = export.deserialize(stored)
    x = jnp.arange(16.0).reshape(2, 8)
    np.testing.assert_array_equal(again.call(x), fast(x))
