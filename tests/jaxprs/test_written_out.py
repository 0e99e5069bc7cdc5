"""Weights that meet data element by element are counted where they are contracted, or named."""

import pytest

import sparsejax as sj
from tests.jaxprs.traced_functions import check_counts, drawn
from tests.jaxprs.written_out import CASES, PRODUCTS


@pytest.mark.parametrize("name", CASES)
def test_what_is_added_up_is_counted_and_scales_are_not(name):
    check_counts(CASES[name])


@pytest.mark.parametrize("name", PRODUCTS)
def test_calibrate_names_the_leaf_and_the_multiply(name):
    case = PRODUCTS[name]
    params, x = drawn(case)
    for leaf in case.counts:
        plan = sj.plan(params, {f"^{leaf}$": sj.Unstructured()}, sparsity=0.5)
        with pytest.raises(ValueError, match=f"^{leaf}: calibrate .*(`mul`|one way)"):
            sj.post.calibrate(case.f, params, plan, [x])
