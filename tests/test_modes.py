"""Laws of JAX's modes and transformations: nothing public is stopped or changed by one of them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.modes_host import ON_THE_HOST, OUTSIDE, WITHIN
from tests.modes_table import TRACED
from tests.project.test_public import public

COMPARED = ("gmp", "rigl", "global_mp", "NM", "spmm", "depthwise_conv2d", "accelerate")
ROWS = {name.partition("/")[0] for name in [*TRACED, *ON_THE_HOST]}


def test_every_public_name_has_a_row_or_a_reason():
    assert set(WITHIN.values()) <= ROWS
    named = [*ROWS, *WITHIN, *OUTSIDE]
    assert len(named) == len(set(named))
    missing, unknown = set(public()) - set(named), set(named) - set(public())
    assert not missing, f"give these a call in tests/modes_table.py or modes_host.py: {missing}"
    assert not unknown, f"the tables call what is not public: {unknown}"


def types(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def plain(thing):
    """Dataclasses are no trees for JAX; their fields are."""
    if dataclasses.is_dataclass(thing) and jax.tree_util.all_leaves([thing]):
        return vars(thing)
    return thing


def assert_same(actual, expected):
    found, wanted = (jax.tree.leaves(jax.tree.map(plain, tree)) for tree in (actual, expected))
    for a, b in zip(found, wanted, strict=True):
        if hasattr(b, "dtype"):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            assert a == b


@functools.cache
def types_of(name):
    """Shapes and dtypes of what the row gives in no mode at all."""
    run, args = TRACED[name]
    return types(jax.eval_shape(run, *args))


@pytest.mark.parametrize("name", TRACED)
def test_strict_promotion_x64_remat_vmap_and_scan_trace_it_at_once(name):
    run, args = TRACED[name]
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), args)
    step = lambda i, _: (i, jax.vmap(jax.checkpoint(run))(*stacked))
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        traced = jax.eval_shape(lambda: jax.lax.scan(step, 0, None, length=3)[1])
    assert types(traced) == [((3, 2, *shape), dtype) for shape, dtype in types_of(name)]


@pytest.mark.parametrize("name", TRACED)
def test_without_jit_types_stay_and_nothing_is_nan(name):
    run, args = TRACED[name]
    with jax.disable_jit(), jax.debug_nans(True):
        eager = run(*args)
    assert types(eager) == types_of(name)
    if name in COMPARED:  # the rest would take a minute to compile
        assert_same(eager, jax.jit(run)(*args))


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_what_the_host_computes_stays_in_every_mode(name):
    run = ON_THE_HOST[name]
    expected = run()
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        assert_same(run(), expected)
    with jax.disable_jit(), jax.debug_nans(True):
        assert_same(run(), expected)
