"""Weights that meet data element by element are counted where they are contracted, or named."""

import contextlib

import jax
import pytest

import sparsejax as sj
from tests.traced_functions import drawn
from tests.written_out import CASES, PRODUCTS


@pytest.mark.parametrize("name", CASES)
def test_what_is_added_up_is_counted_and_scales_are_not(name):
    case = CASES[name]
    params, x = jax.eval_shape(lambda: drawn(case))
    named = "|".join(f"all of {leaf}: .* through `{how}`" for leaf, how in case.lost.items())
    with pytest.warns(sj.SparsityWarning, match=named) if named else contextlib.nullcontext():
        assert sj.multiply_adds(case.f, params, x) == case.counts


@pytest.mark.parametrize("name", PRODUCTS)
def test_calibrate_names_the_leaf_and_the_multiply(name):
    case = PRODUCTS[name]
    params, x = drawn(case)
    for leaf in case.counts:
        plan = sj.plan(params, {f"^{leaf}$": sj.Unstructured()}, sparsity=0.5)
        with pytest.raises(ValueError, match=f"^{leaf}: calibrate .*(`mul`|one way)"):
            sj.calibrate(case.f, params, plan, [x])
