"""What the reader may take along: decided claims, records as a table, points of the picture."""

import csv
import json

from experiments.pages import decided, download, explorer, searches
from experiments.runs.records import Store
from experiments.runs.table import Row
from experiments.settings.classify import Classify
from tests.experiments.small_settings import Lookup, SmallPaper


class ClassifierPaper(SmallPaper):
    ROWS = (Row("dense", Classify()), Row("again", Classify()), Row("never run", Classify(steps=1)))


def filled(folder):
    store = Store(folder)
    for row, values in zip(
        SmallPaper.ROWS, ((0.80, 0.82, 0.81), (0.70, 0.71, 0.72), (0.5,)), strict=True
    ):
        for seed, accuracy in enumerate(values):
            store.write(row.setting, seed, {"accuracy": accuracy, "history": [{"step": 1}]})
    return store


def test_the_csv_has_a_line_a_record_with_all_papers_that_show_it(tmp_path):
    file = tmp_path / "records.csv"
    download.write([SmallPaper, SmallPaper], ["first", "second"], filled(tmp_path), file=file)
    lines = list(csv.DictReader(file.read_text().splitlines()))
    assert len(lines) == 7
    assert {line["papers"] for line in lines} == {"first second"}
    values = {(line["row"], line["seed"]): float(line["value"]) for line in lines}
    assert values["a 90 %", "1"] == 0.82 and values["c", "0"] == 0.5
    assert all(line["setting.class"] == "Lookup" for line in lines)
    assert not any("history" in column for column in lines[0])


def test_only_decided_claims_are_shown_and_the_others_are_counted(tmp_path):
    file = tmp_path / "decided.md"
    decided.write([SmallPaper], filled(tmp_path), file=file)
    page = file.read_text()
    assert "| a > b ([A small table](experiments.md#a-small-table)) | supported | +10.00" in page
    assert "| b > a" in page and "**contradicted**" in page
    assert "a > c" not in page and "1 more claims" in page


def test_the_picture_has_each_trained_classifier_once(tmp_path):
    store, file = Store(tmp_path), tmp_path / "explorer.html"
    for seed, accuracy in enumerate((0.8, 0.9, 0.1)):
        result = {"accuracy": accuracy, "sparsity": 0.75, "multiply_adds_left": 0.5}
        store.write(Classify(), seed, result)
    explorer.write([ClassifierPaper, SmallPaper], store, file=file, times=tmp_path / "none")
    data = file.read_text().split(">", 1)[1].rpartition("</script>")[0]
    (point,) = json.loads(data)
    assert point["row"] == "dense" and point["seeds"] == 2 and point["collapsed"] == 1
    assert abs(point["accuracy"] - 85) < 1e-9 and point["density"] == 25 and point["adds"] == 50
    assert point["ms"] is None and "3000 steps of 64, AdamW" in point["recipe"]


SAID = {
    "AC/DC > GMP at 90 %": "**contradicted**",
    "RigL > static at 98 %": "supported",
    "SynFlow > random at 98 %": "supported",
    "SynFlow > SNIP at 98 %": "supported",
    "on convolutions, too, SparseGPT is more accurate than Wanda at 80 %": "supported",
    "no jackpot at lr 0.01": "supported",
}


def test_what_to_use_says_no_more_than_was_decided():
    """Its second table is written by hand, after these; when they change, so must it."""
    lines = [line.split(" | ") for line in decided.FILE.read_text().splitlines() if "](" in line]
    verdicts = {
        cells[0].removeprefix("| ").partition(" ([")[0]: cells[1]
        for cells in lines
        if len(cells) > 1
    }
    assert SAID.items() <= verdicts.items()


def test_searches_have_a_page_for_each_cost(tmp_path):
    class Searches(SmallPaper):
        ROWS = (
            Row("bytes, ddpg", Lookup("a")),
            Row("bytes, random", Lookup("b")),
            Row("modelled, ddpg", Lookup("c")),
            Row("uniform", Lookup("d")),
        )

    store = Store(tmp_path)
    for row in Searches.ROWS[:3]:
        trials = {"axes": ["cost", "validation_accuracy"], "trials": [[3, 0.5], [2, 0.6]]}
        store.write(row.setting, 0, {"accuracy": 0.7, **trials})
    store.write(Searches.ROWS[3].setting, 0, {"accuracy": 0.7})
    files = searches.write(Searches, "small", store, folder=tmp_path)
    assert [file.name for file in files] == ["small_bytes.html", "small_modelled.html"]
    first, second = (file.read_text() for file in files)
    assert first.count("<circle") == 4 and second.count("<circle") == 2
    assert "validation accuracy" in first and "A small table: bytes, seed 0" in first
