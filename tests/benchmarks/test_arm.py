"""Counts on ARM are compared with the baseline, loops are found in listings, MNN is asked for."""

import json

import pytest

from benchmarks import kernel_groups
from benchmarks.arm import __main__ as arm
from benchmarks.arm import mnn
from benchmarks.arm.count import Bench, innermost_loop
from benchmarks.arm.tools import MissingError, Program

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


def mnn_checkout(folder, version):
    header = folder / "include" / "MNN" / "MNNDefine.h"
    header.parent.mkdir(parents=True)
    numbers = zip(("MAJOR", "MINOR", "PATCH"), version.split("."), strict=True)
    header.write_text("".join(f"#define MNN_VERSION_{name} {x}\n" for name, x in numbers))
    return folder


def test_mnn_of_another_version_than_its_converter_is_not_built(tmp_path):
    with pytest.raises(MissingError, match=r"is no checkout of MNN: git clone .*alibaba/MNN"):
        mnn.build(tmp_path)
    older = mnn_checkout(tmp_path, "2.9.10")
    assert mnn.version(older) == "2.9.10"
    with pytest.raises(MissingError, match=rf"MNN {mnn.WANTED} is needed, got 2\.9\.10: git clone"):
        mnn.build(older)


def test_mnn_is_not_counted_without_a_checkout(tmp_path):
    bench = Bench(Program("qemu-aarch64"), None, {})
    assert "--mnn names no checkout" in kernel_groups.mnn_rows(bench, {}, {}, None)
    assert "is no checkout of MNN" in kernel_groups.mnn_rows(bench, {}, {}, tmp_path)
