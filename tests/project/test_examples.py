"""The programs in examples/ run as they stand, with fewer steps, and do what they say."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = {"linen_batch_norm": 30, "nnx_mlp": 36, "equinox_mlp": 45}


@pytest.mark.parametrize("name", PROGRAMS)
def test_example_trains_sparse_resumes_reports_and_compiles(name, capsys):
    file = EXAMPLES / f"{name}.py"
    assert len(file.read_text().splitlines()) < 90
    accuracy = runpy.run_path(str(file))["main"](steps=PROGRAMS[name])
    said = capsys.readouterr().out
    assert re.search(r"planned .* 0\.9000", said)
    assert 0.3 < accuracy <= 1.0


def test_the_language_model_is_pruned_and_compiled(capsys):
    example = runpy.run_path(str(EXAMPLES / "language_model.py"))
    results = example["main"](steps=25, width=32, num_blocks=1, num_test=64)
    assert results.keys() == {
        "dense",
        *(f"{m} {p}" for m in ("magnitude", "Wanda", "SparseGPT") for p in ("50 %", "2:4")),
    }
    assert all(1 < value < 90 for value in results.values())
    assert results["SparseGPT 2:4"] < results["magnitude 2:4"]
    assert len(capsys.readouterr().out.splitlines()) == len(results)


def test_every_example_is_tried():
    assert {file.stem for file in EXAMPLES.glob("*.py")} == {*PROGRAMS, "language_model"}
