"""compile's choice of how weights are stored: by the model, by measurement, and by the plan."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.layouts import select, tune
from sparsejax.compiler.layouts.select import Traits
from sparsejax.patterns.layout import BLOCKS, MASKS, ROWS, Layout


def pruned(size, density, rows=1):
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.random((size, size // rows)) < density, rows, axis=1)
    return (rng.standard_normal((size, size)) * blocks).astype(np.float32)


def multiply(matrix, x):
    return x @ matrix


def choice(matrix, positions, **options):
    """The row of the report for x @ matrix."""
    fast = sj.compile(multiply, matrix, jnp.ones((positions, len(matrix))), **options)
    return fast.report().layers[0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "times.json"
    monkeypatch.setenv("SPARSEJAX_CACHE", str(path))
    return path


@pytest.mark.parametrize(("rows", "name"), [(1, "CSR"), (2, "2x1"), (4, "4x1"), (8, "8x1")])
def test_the_model_finds_the_pattern_of_the_zeros(rows, name):
    row = choice(pruned(256, 0.1, rows), 196, tune=False)
    assert row.kernel == "sparse"
    assert row.pattern == name or row.pattern in {1: ("mask groups",), 8: ("4x1",)}.get(rows, ())
    assert np.isnan(row.microseconds)


def test_dense_stays_where_it_is_faster_and_says_so():
    row = choice(pruned(256, 1.0), 196, tune=False)
    assert (row.kernel, row.pattern, row.reason) == ("dense", "dense", "no zeros")
    row = choice(pruned(256, 0.9), 196, tune=False)
    assert row.kernel == "dense" or row.sparsity > row.break_even
    assert 0 < row.break_even < 0.8


def test_measured_times_are_kept_and_used(own_cache, monkeypatch):
    row = choice(pruned(128, 0.1), 64)
    assert row.microseconds > 0
    content = json.loads(own_cache.read_text())
    assert content["machine"] == tune.machine()
    monkeypatch.setattr(tune, "load", None)  # nothing is measured again
    assert choice(pruned(128, 0.1), 64).microseconds == row.microseconds


def test_a_forged_time_decides(own_cache):
    """So the times of the cache are what is compared."""
    choice(pruned(128, 0.1), 64)
    content = json.loads(own_cache.read_text())
    traits = Traits(128, 128, 64, False, (0.1,) * 4)
    forged = {}
    for key in content["times"]:
        forged[key] = 0.001 if key.endswith("['rows',4,0,0,0]") else 9e9
    own_cache.write_text(json.dumps(content | {"times": forged}))
    assert traits.rows == 128
    row = choice(pruned(128, 0.1), 64)
    assert (row.pattern, row.microseconds) == ("CSR", 0.001)


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"machine": "another", "times": {}}', '{"times": {"a": "b"}}', ""]
)
def test_a_damaged_or_foreign_cache_is_ignored_with_a_warning(own_cache, text):
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(text)
    with pytest.warns(UserWarning, match="ignores its cache"):
        row = choice(pruned(64, 0.1), 64)
    assert row.microseconds > 0
    assert json.loads(own_cache.read_text())["machine"] == tune.machine()


def test_a_cache_that_cannot_be_written_gives_a_warning(monkeypatch):
    monkeypatch.setenv("SPARSEJAX_CACHE", "/proc/nothing/times.json")
    with pytest.warns(UserWarning, match="cannot write its cache"):
        choice(pruned(64, 0.1), 64)


@pytest.mark.parametrize("rows", [1, 4])
def test_the_plan_decides_the_pattern(rows):
    params = {"kernel": pruned(64, 0.1, rows)}
    pattern = sj.Unstructured() if rows == 1 else sj.Block(4, 1)
    plan = sj.plan(params, {"kernel": pattern}, sparsity=0.9)

    def apply(params, x):
        return x @ params["kernel"]

    x = jnp.ones((49, 64))
    row = sj.compile(apply, params, x, plan=plan, tune=False).report().layers[0]
    assert row.pattern in {1: ("CSR", "mask groups"), 4: ("4x1", "2x1")}[rows]
    with pytest.raises(TypeError, match="plan made by"):
        sj.compile(apply, params, x, plan={"kernel": pattern})


@pytest.mark.parametrize("rule", [sj.Block(4, 1), sj.Stacked(sj.Block(4, 1), (0, 1))])
def test_the_plan_decides_the_pattern_of_the_turns_of_loops(rule):
    def apply(params, x):
        turn = lambda x, kernel: (jax.nn.relu(x @ kernel), None)
        nested = lambda x, kernels: jax.lax.scan(turn, x, kernels)
        return jax.lax.scan(nested, x, params["kernel"])[0]

    params = {"kernel": jnp.stack([jnp.stack([pruned(64, 0.1, 4)] * 2)] * 2)}
    plan = sj.plan(params, {"kernel": rule}, sparsity=0.9)
    fast = sj.compile(apply, params, jnp.ones((49, 64)), plan=plan, tune=False)
    assert {row.pattern for row in fast.report().layers} <= {"4x1", "2x1"}


def test_stored_shares_count_rounded_up_groups():
    matrix = np.zeros((5, 4), np.float32)
    matrix[0, 0] = matrix[4, 1] = 1
    assert select.stored_fraction(matrix, 1) == 2 / 20
    assert select.stored_fraction(matrix, 4) == 2 / 8
    assert select.stored_fraction(matrix, 8) == 2 / 4


def test_candidates_are_sorted_and_few():
    full = Traits(256, 256, 196, False, (1.0, 1.0, 1.0, 1.0))
    assert all(layout.storage == BLOCKS for layout in select.candidates(full)[:2])
    half = Traits(256, 256, 196, False, (0.5, 0.75, 0.94, 1.0))
    assert any(layout.storage == MASKS for layout in select.candidates(half))
    times = [select.estimate(half, layout) for layout in select.candidates(half)]
    assert times == sorted(times)


def test_break_even_is_where_the_model_meets_dense():
    traits = Traits(256, 256, 196, False, (0.1, 0.19, 0.34, 0.57))
    dense = select.estimate(traits, Layout(BLOCKS, 4), 1.0)
    sparsity = select.break_even(traits, Layout(ROWS, 2), dense)
    at = select.estimate(traits, Layout(ROWS, 2), 1 - sparsity)
    assert at == pytest.approx(dense, rel=1e-6) or sparsity == 0


def test_empty_inputs_and_weights_are_left_alone():
    fast = sj.compile(multiply, pruned(64, 0.2), jnp.ones((0, 64)))
    assert fast(jnp.ones((0, 64))).shape == (0, 64)
    fast = sj.compile(multiply, np.ones((4, 0), np.float32), jnp.ones((2, 4)))
    assert fast(jnp.ones((2, 4))).shape == (2, 0)


PATTERNS = [
    (sj.Unstructured(), {"CSR", "mask groups"}),
    (sj.Block(4, 1), {"4x1", "2x1"}),
    (sj.Block(1, 4), {"CSR", "mask groups"}),
    (sj.Block(3, 1), {"CSR", "mask groups"}),
    (sj.KernelGroup(8), {"8x1", "4x1", "2x1"}),
    (sj.Channel(-2), {"8x1", "4x1", "2x1"}),
    (sj.Channel(-1), {"CSR", "mask groups"}),
    (sj.NM(1, 8), {"CSR", "mask groups"}),
    (sj.BlockColumnRow(4, 16), {"4x1", "2x1"}),
    (sj.BlockColumnRow(4, 16, kept_rows=1), {"CSR", "mask groups"}),
]


@pytest.mark.parametrize(("pattern", "names"), PATTERNS)
def test_weights_of_every_pattern_run_packed(pattern, names):
    """In no more than they keep."""
    scores = np.random.default_rng(0).random((48, 192), np.float32) + 0.1
    mask = np.asarray(pattern.mask(jnp.asarray(scores), 0.875))
    params = {"kernel": scores * mask}
    plan = sj.plan(params, {"kernel": (pattern, 0.875)})
    apply = lambda params, x: x @ params["kernel"]
    row = sj.compile(apply, params, jnp.ones((49, 48)), plan=plan, tune=False).report().layers[0]
    assert row.pattern in names
    rows = {"2x1": 2, "4x1": 4, "8x1": 8}.get(row.pattern, 1)
    assert select.stored_fraction(params["kernel"].T, rows) == mask.mean()
