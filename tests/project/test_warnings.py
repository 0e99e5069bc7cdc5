"""A warning points at the user's line, however many libraries stand between it and ours."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import sparsejax as sj
from sparsejax.compiler.layouts import times


def capped_plan():
    sj.plan({"kernel": jnp.ones((8, 4))}, {"kernel": sj.NM(2, 4)}, sparsity=0.9)


def lost_product():
    product = lambda params, x: x @ jnp.sort(params["kernel"])
    sj.multiply_adds(product, {"kernel": jnp.ones((8, 4))}, jnp.ones((1, 8)))


def half_precision():
    linear = lambda params, x: x @ params["kernel"]
    sj.compile(linear, {"kernel": jnp.ones((8, 4), jnp.bfloat16)}, jnp.ones((1, 8), jnp.bfloat16))


def forgotten_forward():
    params = {"kernel": jnp.ones((8, 4))}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    soft = sj.sparsify(optax.sgd(0.1), sj.soft.pdp(1, 9), plan, key=jax.random.key(0))
    tx = optax.chain(optax.identity(), soft)
    jax.jit(lambda state: tx.update(params, state, params))(tx.init(params))


def damaged_cache():
    times.read_cache()


@pytest.mark.parametrize(
    "call", [capped_plan, lost_product, half_precision, forgotten_forward, damaged_cache]
)
def test_a_warning_points_at_the_users_line(call, tmp_path, monkeypatch):
    (tmp_path / "times.json").write_text("no JSON")
    monkeypatch.setenv("SPARSEJAX_CACHE", str(tmp_path / "times.json"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert caught and {warning.filename for warning in caught} == {__file__}


def test_one_place_decides_where_warnings_point():
    sources = Path(sj.__file__).parent.rglob("*.py")
    assert [p.name for p in sources if "warnings.warn(" in p.read_text()] == ["text.py"]
