"""The counts on ARM are compared with the baseline, and loops are found in a listing."""

import json

import pytest

from benchmarks.arm import __main__ as arm
from benchmarks.arm.count import innermost_loop

LISTING = [
    "fmla\tv0.4s, v1.4s, v2.4s",  # the outer loop
    "cbz\tx3, 1020 <f+0x20>",
    "fmla\tv0.4s, v1.4s, v2.4s",  # the inner one
    "ldr\tq1, [x0]",
    "fmla\tv0.4s, v1.4s, v2.4s",
    "cmp\tx1, x2",
    "b.ne\t1008 <f+0x8>",
    "cbnz\tx4, 1000 <f>",
]
CODE = {0x1000 + 4 * i: line for i, line in enumerate(LISTING)}


@pytest.mark.parametrize("address, loop", [(0x1010, (0x1008, 5)), (0x1000, (0x1000, 8))])
def test_loop_around_an_address_ends_with_the_jump_back(address, loop):
    assert innermost_loop(CODE, address) == loop


def test_code_without_a_jump_back_has_no_loop():
    with pytest.raises(ValueError, match="no loop around 1000"):
        innermost_loop(dict(list(CODE.items())[:6]), 0x1000)


def counts(growth):
    return {
        "compiler": "g++",
        "sparsity": 0.9,
        "counts": {
            "1x1, 1 rows, 4x4x4": {arm.COUNTED: 2.0 * growth},
            "1x1, 2 rows, 4x4x4": {arm.COUNTED: 3.0},
        },
    }


@pytest.fixture
def baseline(tmp_path, monkeypatch):
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(counts(1.0)))
    monkeypatch.setattr(arm, "BASELINE", file)


def test_count_that_grows_by_more_than_three_percent_fails(baseline, capsys):
    arm.compare(counts(1.02))
    assert "2 within 3 %" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"1x1, 1 rows, 4x4x4.*2\.0 -> 2\.08"):
        arm.compare(counts(1.04))


def test_counts_of_another_compiler_are_not_compared(baseline, capsys):
    arm.compare({**counts(2.0), "compiler": "clang"})
    assert "NOT COMPARED" in capsys.readouterr().out


def test_a_layer_is_judged_by_its_leanest_way():
    assert arm.leanest(counts(1.0)["counts"], "1x1", "4x4x4") == {arm.COUNTED: 2.0}
