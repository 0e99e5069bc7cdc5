"""Damaged files are named by one sentence that says what to do, whoever reads them back."""

import io
import json
import sys

import numpy as np
import pytest

import sparsejax as sj
from benchmarks.arm import __main__ as arm
from benchmarks.peers import results
from experiments import __main__ as command_line
from experiments.data.datasets import _open
from experiments.data.stored import read_npz
from experiments.demo import run as demo
from experiments.demo.settings import Demo, prepare
from experiments.demo.showcase import load_weights
from experiments.pages import methods_page, readme
from experiments.papers import suite
from experiments.runs.records import Store
from experiments.runs.table import Row
from experiments.settings import train
from tests.experiments.counting import Count
from tests.experiments.small_settings import paper_of


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


ARRAY = io.BytesIO()
np.save(ARRAY, np.arange(3))
WHOLE = {
    "json": json.dumps({"machine": {}, "cases": [], "compiler": "gcc", "counts": {}}).encode(),
    "npz": archive(w=np.arange(99.0)),
}
FLIPPED = bytearray(WHOLE["npz"])
FLIPPED[400] ^= 1
DAMAGED = {
    "json": [b"", WHOLE["json"][:-9], b"[]", b"3", b"null", b"\xff\xfe\x00", b"[" * 99_999],
    "npz": [b"", WHOLE["npz"][:-9], ARRAY.getvalue(), b"{}", b"PK\x03\x04" + b"\0" * 90, FLIPPED],
}
PARTS = {
    "record": b'{"setting": {}, "seed": 0, "result": []}',
    "results": b'{"machine": 3, "cases": []}',
    "baseline": b'{"compiler": "gcc"}',
    "arrays": archive(w=np.arange(98.0)),
}


def record(path, monkeypatch):
    monkeypatch.setattr(Store, "path", lambda store, setting, seed: path)
    Store(path.parent).read(Count(), 0)


def recipe(path, monkeypatch):
    (path.parent / "checkpoint").mkdir()
    path.rename(path.parent / "checkpoint" / "recipe.json")
    prepare(Demo(output=path.parent))


def costs(path, monkeypatch):
    methods_page.write(Store(path.parent), file=path.with_suffix(".md"), costs=path)


def baseline(path, monkeypatch):
    monkeypatch.setattr(arm, "BASELINE", path)
    arm.compare({})


READERS = {
    "record": (record, "json", "delete it to run its task again"),
    "recipe": (recipe, "json", "pass --fresh to delete the run"),
    "costs": (costs, "json", "write it again with python -m benchmarks.method_costs"),
    "results": (lambda path, _: results.read(path), "json", "delete it to measure anew"),
    "baseline": (baseline, "json", "write it again with --update"),
    "arrays": (lambda path, _: read_npz(path, {"w": (99,)}, "make it anew"), "npz", "make it anew"),
    "weights": (lambda path, _: load_weights(path), "npz", "write it again with save_weights"),
    "image": (lambda path, _: _open(path), "npz", "that pillow can read, or delete it"),
}
CASES = [
    (name, content)
    for name, (_, kind, _) in READERS.items()
    for content in [*DAMAGED[kind], *([PARTS[name]] if name in PARTS else [])]
]


@pytest.mark.parametrize(
    ("reader", "content"),
    CASES,
    ids=lambda case: str(bytes(case[:9]) if isinstance(case, (bytes, bytearray)) else case),
)
def test_a_damaged_file_is_named_with_what_to_do(reader, content, tmp_path, monkeypatch):
    read, kind, cure = READERS[reader]
    path = tmp_path / f"recipe.{kind}"
    path.write_bytes(content)
    with pytest.raises((ValueError, SystemExit)) as error:
        read(path, monkeypatch)
    said = str(error.value)
    assert path.name in said and str(tmp_path) in said and cure in said
    assert said.endswith(".") and "\n" not in said and len(said) < 400


def test_a_damaged_checkpoint_ends_the_demo_with_a_sentence(tmp_path, monkeypatch):
    state = train.TrainState({"w": np.ones(2)}, {}, (), np.int32(0))
    with sj.checkpoint(tmp_path / "dense") as checkpoints:
        checkpoints.save(1, state)
    (tmp_path / "dense" / "1" / "manifest" / "metadata").write_bytes(b"{")

    def train_both(*_):
        with sj.checkpoint(tmp_path / "dense") as checkpoints:
            options = dict.fromkeys(("num_steps", "measure", "measure_every", "report"))
            train.train(None, state, None, checkpoints=checkpoints, **options)

    monkeypatch.setattr(demo, "train_both", train_both)
    monkeypatch.setattr(demo.fashion, "load", lambda say: None)
    monkeypatch.setattr(demo.jax.config, "update", lambda *_: None)
    with pytest.raises(SystemExit, match=r"Step 1 in .* is damaged: .* --fresh to begin anew"):
        demo.main(Demo(output=tmp_path))


def test_a_damaged_record_does_not_stop_the_list(tmp_path, monkeypatch, capsys):
    store = Store(tmp_path)
    first, second = (store.write(Count(), seed, {"total": 1}) for seed in (0, 1))
    first.write_bytes(b"")
    second.with_name("seed_of_mine.json").touch()
    papers = (paper_of(Row("a", Count(), 2)), paper_of(Row("b", Count(), 2), Row("c", Count(5))))
    monkeypatch.setattr(suite, "PAPERS", papers)
    monkeypatch.setattr(suite, "TABLES", papers)
    monkeypatch.setattr(command_line, "Store", lambda: store)
    monkeypatch.setattr(readme, "write", None)
    for command, said in (("list", "1/2"), ("table", "")):
        monkeypatch.setattr(sys, "argv", ["experiments", command])
        with pytest.raises(SystemExit, match=f"{first} is damaged") as ending:
            command_line.main()
        assert ending.value.code.count("is damaged") == 1, "once, though two papers have the row"
        assert said in capsys.readouterr().out
