"""Records are whole, named by what decides them, and claimed by one process."""

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sparsejax as sj
from experiments.papers.suite import TABLES
from experiments.recipes import magnitude
from experiments.runs.records import RENAMED, RESULTS, ROOT, Store, claim, describe, slug
from experiments.runs.table import added
from experiments.settings.classify import Classify
from tests.experiments.counting import Count

HOLD = """
    import sys, time
    from pathlib import Path
    from experiments.runs.records import claim
    with claim(Path(sys.argv[1])) as mine:
        print(mine, flush=True)
        time.sleep(600)
"""


def test_a_record_says_what_was_run_and_where(tmp_path):
    store = Store(tmp_path)
    assert store.read(Count(), 2) is None
    path = store.write(Count(), 2, {"total": 5})
    assert path.parent.parent == tmp_path and path.name == "seed2.json"
    record = store.read(Count(), 2)
    assert record["result"] == {"total": 5} and record["seed"] == 2
    assert record["setting"]["steps"] == 3 and record["setting"]["class"] == "Count"
    assert record["machine"]["cores"] >= 1 and len(record["commit"]) >= 7
    assert [file.name for file in path.parent.iterdir()] == ["seed2.json"]


def test_a_result_that_json_cannot_hold_leaves_no_record(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(TypeError):
        store.write(Count(), 0, {"total": object()})
    assert store.read(Count(), 0) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff{}", b"[]", b"{}", b'{"setting": 3, "seed": 0, "result": {}}']
)
def test_a_damaged_record_names_its_file(content, tmp_path):
    path = Store(tmp_path).write(Count(), 2, {"total": 5})
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} .*delete it to run its task again"):
        Store(tmp_path).read(Count(), 2)


def test_settings_are_described_by_names():
    setting = describe(Classify(magnitude.gmp, 0.9, pattern=sj.Block(4, 1)))
    assert json.loads(json.dumps(setting)) == setting
    assert setting["method"] == "gmp" and setting["allocate"] == "erk"
    assert setting["pattern"]["class"] == "Block"
    with pytest.raises(TypeError, match="at the top of a module"):
        describe(Classify(lambda tx, setup: tx))


def test_equal_settings_share_a_folder_and_others_do_not():
    assert slug(Classify(magnitude.gmp, 0.9)) == slug(Classify(magnitude.gmp, 0.9, steps=3_000))
    assert slug(Classify(magnitude.gmp, 0.9)) != slug(Classify(magnitude.gmp, 0.9, steps=30))
    assert slug(Classify(magnitude.gmp, 0.9)) != slug(Classify(magnitude.global_mp, 0.9))


def test_no_record_is_orphaned_or_refused():
    settings = {slug(row.setting): row.setting for paper in TABLES for row in paper.ROWS}
    rows = {name.rpartition("-")[2]: setting for name, setting in settings.items()}
    assert len(rows) == len(settings)
    for folder in filter(Path.is_dir, RESULTS.iterdir()):
        setting = rows.get(folder.name.rpartition("-")[2])
        assert setting, f"no row has {folder.name}: after a renaming, say so in records.RENAMED"
        for file in folder.glob("seed*.json"):
            assert Store().read(setting, int(file.stem.removeprefix("seed")))


def functions(value, place=""):
    """All functions of a setting, by the field where they stand."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from functions(getattr(value, field.name), f"{type(value).__name__}.{field.name}")
    elif callable(value):
        yield place, value


def test_a_name_means_one_function_in_a_field():
    meant = {}
    for setting in (row.setting for paper in TABLES for row in paper.ROWS):
        for place, function in functions(setting):
            assert meant.setdefault((place, describe(function)), function) is function


def renamed(tx, setup):
    return tx


def test_a_renamed_function_keeps_its_records(tmp_path, monkeypatch):
    Store(tmp_path).write(Classify(magnitude.gmp, 0.9), 0, {"accuracy": 1})
    assert Store(tmp_path).read(Classify(renamed, 0.9), 0) is None
    monkeypatch.setitem(RENAMED, "renamed", "gmp")
    assert Store(tmp_path).read(Classify(renamed, 0.9), 0)["result"] == {"accuracy": 1}


def test_a_moved_function_keeps_its_records(tmp_path, monkeypatch):
    Store(tmp_path).write(Classify(magnitude.gmp, 0.9), 0, {"accuracy": 1})
    monkeypatch.setattr(magnitude.gmp, "__module__", "elsewhere")
    assert Store(tmp_path).read(Classify(magnitude.gmp, 0.9), 0)


def test_a_field_that_was_added_leaves_the_records_of_settings_around_it():
    def around(*new):
        inner = dataclasses.make_dataclass("Inner", [("steps", int, 3), *new], frozen=True)
        outer = dataclasses.make_dataclass("Outer", [("inner", inner)], frozen=True)
        outer.label = "outer"
        return lambda **options: outer(inner(**options))

    before, after = around(), around(("rate", float, added(0.5)))
    assert slug(after()) == slug(before()) and describe(after()) == describe(before())
    assert slug(after(rate=0.1)) != slug(before())


def test_a_new_field_with_a_default_leaves_old_records_valid(tmp_path):
    fields = [("steps", int, 3)]
    make = lambda fields: dataclasses.make_dataclass(
        "S", fields, frozen=True, namespace={"label": "s", "headline": "total"}
    )
    old, new = make(fields)(5), make([*fields, ("more", int, 0)])(5)
    changed = make([("steps", int, 5)])()
    Store(tmp_path).write(old, 0, {"total": 1})
    assert Store(tmp_path).read(new, 0)["result"] == {"total": 1}
    assert slug(changed) != slug(old)


def test_a_changed_default_is_refused(tmp_path):
    make = lambda default: dataclasses.make_dataclass(
        "S", [("steps", int, default)], frozen=True, namespace={"label": "s", "headline": "total"}
    )
    Store(tmp_path).write(make(3)(), 0, {"total": 1})
    with pytest.raises(ValueError, match="made with another steps"):
        Store(tmp_path).read(make(4)(), 0)


def test_one_process_has_a_claim_until_it_dies(tmp_path):
    folder = tmp_path / "setting" / "seed0"
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        said = holder.stdout.readline()
        with claim(folder) as while_held:
            holder.send_signal(signal.SIGKILL)
    assert said == "True\n" and not while_held
    with claim(folder) as mine:
        assert mine
