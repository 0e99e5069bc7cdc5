"""compile's choice of how weights are stored: by the model, by measurement, and by the plan."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.compiler.layouts import select, times, tune
from sparsejax.compiler.layouts.select import Traits
from sparsejax.ops import _ffi
from sparsejax.patterns.layout import BLOCKS, MASKS, ROWS, Layout
from tests.costs import COSTS


def pruned(size, density, rows=1):
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.random((size, size // rows)) < density, rows, axis=1)
    return (rng.standard_normal((size, size)) * blocks).astype(np.float32)


def multiply(matrix, x):
    return x @ matrix


def choice(matrix, positions, **options):
    """The row of the report for x @ matrix, of images, for which any layout may be."""
    fast = sj.compile(multiply, matrix, jnp.ones((1, positions, 1, len(matrix))), **options)
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


def no_time_to_measure(lowered, **_):
    raise AssertionError("all times are known")


def test_measured_times_are_kept_and_used(own_cache, monkeypatch):
    """The fastest two are measured again by the next compile, and by no later one."""
    clock = itertools.count(1)
    slower = lambda program, **_: [1e-6 * next(clock)] * (len(program.owners) + 2)
    monkeypatch.setattr(tune, "profile", slower)
    for _ in range(2):
        row = choice(pruned(128, 0.1), 64)
        assert row.microseconds > 0
    content = json.loads(own_cache.read_text())
    assert content["machine"] == times.machine()
    repeats = [repeats for _, repeats in content["times"].values()]
    assert repeats.count(3) == 2 and min(repeats) == 1
    monkeypatch.setattr(tune, "profile", no_time_to_measure)
    again = choice(pruned(128, 0.1), 64)
    assert 0 < again.microseconds <= row.microseconds


def forge(own_cache, monkeypatch, micros_of):
    """A cache in which all layouts have been measured, and took as long as a function says."""
    monkeypatch.setattr(tune, "profile", lambda program, **_: [1e-6] * len(program.owners) * 3)
    choice(pruned(128, 0.1), 64)
    content = json.loads(own_cache.read_text())
    forged = {key: [micros_of(key), 3] for key in content["times"]}
    own_cache.write_text(json.dumps(content | {"times": forged}))
    monkeypatch.setattr(tune, "profile", lambda program, **_: [1.0] * len(program.owners) * 3)


def test_a_forged_time_decides(own_cache, monkeypatch):
    """So the times of the cache are what is compared, with that of a dense layer."""
    dense = "[1.0,1.0,1.0,1.0]"
    rows = "['rows',4,0,0,0]"
    micros = lambda key: 40.0 if dense in key else 10.0 if key.endswith(rows) else 9e9
    forge(own_cache, monkeypatch, micros)
    row = choice(pruned(128, 0.1), 64)
    assert (row.pattern, row.microseconds, row.estimated) == ("CSR", 10.0, False)
    assert row.reason.endswith("zeros: 0.25 of dense time")
    twice = lambda key: 2 * micros(key) if dense in key else micros(key)
    forge(own_cache, monkeypatch, twice)
    assert choice(pruned(128, 0.1), 64).reason.endswith("zeros: 0.12 of dense time")


def test_without_a_dense_time_what_is_said_is_marked():
    fast = sj.compile(multiply, pruned(128, 0.1), jnp.ones((64, 128)), tune=False)
    (row,) = fast.report().layers
    assert row.estimated and "zeros: about 0." in row.reason
    assert f"~{row.break_even:.0%}" in str(fast.report())


def test_equal_layers_are_measured_as_one(monkeypatch):
    """Of three of them each has another layout in the one run; a budget that is over is said."""
    layers = np.stack([pruned(64, 0.1)] * 3)

    def apply(layers, x):
        for matrix in layers:
            x = jax.nn.relu(x @ matrix)
        return x

    trials = []

    def profile(program, **_):
        trials.append(program)
        return [1e-6 * (step + 1) for step in range(len(program.owners) + 2)]

    monkeypatch.setattr(tune, "profile", profile)
    monkeypatch.setattr(tune, "BUDGET_SECONDS", -1)
    report = sj.compile(apply, layers, jnp.ones((1, 64, 1, 64))).report()
    assert len(trials) == 1  # the best estimates, however short the time
    assert len({row.microseconds for row in report.layers}) == 1
    fractions = tuple(select.stored_fraction(layers[0].T, rows) for rows in select.BLOCK_ROWS)
    wanted = select.candidates(COSTS, Traits(64, 64, 64, False, 1, fractions))
    assert report.unmeasured == len(wanted) - 3
    assert f"{len(wanted) - 3} layouts left" in str(report)
    monkeypatch.setattr(tune, "BUDGET_SECONDS", 60)
    assert sj.compile(apply, layers, jnp.ones((1, 64, 1, 64))).report().unmeasured == 0
    assert len(trials) <= 1 + 1 + 1 + 2 + 1 + 2  # left, dense, tiles, chunks, the fastest two again


def small_net(params, x):
    pool = lambda x: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    conv = lambda x, kernel, groups: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip
    return jax.nn.relu(pool(conv(conv(x, params["depthwise"], 8), params["full"], 1))) + 1


def test_every_step_has_a_time(own_cache):
    """Depthwise layers have rows of their own, steps without weights one for each kind."""
    rng = np.random.default_rng(0)
    shapes = {"depthwise": (3, 3, 1, 8), "full": (3, 3, 8, 8)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for _ in range(2):  # measured, and from the cache
        report = sj.compile(small_net, params, jnp.ones((2, 8, 8, 8))).report()
        assert report.layers[0].kernel == "depthwise"
        assert all(row.microseconds > 0 for row in report.layers)
        assert len(report.others) == 3 and min(report.others.values()) > 0
        assert "max" in report.others and "max" in str(report)
    assert report.to_dict()["others"] == report.others


@pytest.mark.parametrize(("factor", "name"), [(0.9, "sse2"), (1.1, ""), (1.5, "")])
def test_another_instruction_set_is_taken_where_it_is_faster(monkeypatch, factor, name):
    """Any CPU of this kind has SSE2; where it takes 1.2 times as long it is looked at once."""
    if "sse2" not in _ffi.usable_isas():
        pytest.skip("a CPU of another kind")
    tried = []

    def profile(program, *, isa, **_):
        tried.append(isa)
        return [1e-6 * (factor if isa else 1.0)] * (len(program.owners) + 2)

    monkeypatch.setattr(tune, "profile", profile)
    monkeypatch.setattr(tune, "other_sets", lambda: ["sse2"])
    matrix, x = pruned(64, 0.2), np.ones((32, 64), np.float32)
    fast = sj.compile(multiply, matrix, x)
    (row,) = fast.report().layers
    assert row.reason.endswith("; sse2 is faster") == bool(name)
    (packed,) = fast._first().packed.values()
    assert packed.programs.strips == {"isa": name}
    assert (tried.count("sse2") == 1) == (factor == 1.5)
    np.testing.assert_allclose(fast(x), multiply(matrix, x), atol=1e-4)


def test_the_best_of_each_family_is_tried_before_the_rest():
    half = Traits(256, 256, 196, False, 1, (0.5, 0.75, 0.94, 1.0))
    tried = select.candidates(COSTS, half)
    assert tried[0] == min(tried, key=lambda layout: select.estimate(COSTS, half, layout))
    assert {layout.storage for layout in tried[:4]} == {ROWS, BLOCKS, MASKS}


@pytest.mark.parametrize(("took", "taken"), [(12.0, ROWS), (13.0, BLOCKS)])
def test_what_is_packed_is_taken_where_it_is_about_as_fast(took, taken):
    traits, held = Traits(256, 256, 196, False, 1, (0.1, 0.2, 0.3, 0.5)), Layout(ROWS, 8)
    times = {Layout(BLOCKS, 8): 10.0, held: took}
    choice = select.choose(COSTS, traits, list(times), times, math.nan, held)
    assert choice.layout.storage == taken and choice.microseconds == times[choice.layout]


def test_rows_are_stored_for_few_and_many():
    traits = Traits(256, 256, 64, False, 1, (0.1, 0.19, 0.34, 0.57))
    tried = select.candidates(COSTS, traits, sj.Block(2, 1), rows=True)
    assert tried[0] == Layout(ROWS, 8) and set(tried) <= set(select.FOR_ROWS)


def test_a_plan_takes_no_layout_away():
    third = Traits(96, 96, 196, False, 1, (0.1, 0.19, 0.2, 0.3))
    for pattern in (None, sj.Block(3, 1), sj.Block(4, 1), sj.Unstructured()):
        tried = select.candidates(COSTS, third, pattern)
        assert set(select.candidates(COSTS, third)) <= set(tried)
        assert pattern is None or set(tried) & set(pattern.layouts())


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"machine": "another", "times": {}}', '{"times": {"a": "b"}}', ""]
)
def test_a_damaged_or_foreign_cache_is_ignored_with_a_warning(own_cache, text):
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(text)
    with pytest.warns(UserWarning, match="ignores its cache"):
        row = choice(pruned(64, 0.1), 64)
    assert row.microseconds > 0
    assert json.loads(own_cache.read_text())["machine"] == times.machine()


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

    x = jnp.ones((1, 49, 1, 64))
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


def test_candidates_are_few():
    full = Traits(256, 256, 196, False, 1, (1.0, 1.0, 1.0, 1.0))
    assert select.candidates(COSTS, full)[0].storage == BLOCKS
    dense = select.estimate(COSTS, full, Layout(BLOCKS, 4))
    for layout in select.candidates(COSTS, full):
        assert select.estimate(COSTS, full, layout) <= select.WORTH_A_TRIAL * dense


def test_break_even_is_where_the_model_meets_dense():
    traits = Traits(256, 256, 196, False, 1, (0.1, 0.19, 0.34, 0.57))
    dense, layout = select.estimate(COSTS, traits, Layout(BLOCKS, 4), 1.0), Layout(ROWS, 2)
    took = select.estimate(COSTS, traits, layout)
    sparsity = select.break_even(COSTS, traits, layout, dense)
    at = select.estimate(COSTS, traits, layout, 1 - sparsity)
    assert 0 < sparsity < 1 and at == pytest.approx(dense, rel=1e-6)
    even = lambda *micros: select.break_even(COSTS, traits, layout, *micros)
    assert even(0.7 * dense, 0.7 * took) == pytest.approx(sparsity)
    dense_now = traits._replace(stored=(1.0,) * 4)  # by the model alone, whatever is stored
    assert select.break_even(COSTS, dense_now, layout, dense) == pytest.approx(sparsity)
    # what was measured counts: a faster layer pays from fewer zeros on
    assert 0 < even(dense, took / 2) < sparsity < even(dense, 3 * took) < 1
    assert even(dense, dense) == pytest.approx(0.9)  # 10 % are stored, and it takes as long


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
    x = jnp.ones((1, 49, 1, 48))
    row = sj.compile(apply, params, x, plan=plan, tune=False).report().layers[0]
    assert row.pattern in names
    rows = {"2x1": 2, "4x1": 4, "8x1": 8}.get(row.pattern, 1)
    assert select.stored_fraction(params["kernel"].T, rows) == mask.mean()
