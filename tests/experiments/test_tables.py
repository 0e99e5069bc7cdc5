"""Every paper's table is complete, and the page says what the records say."""

import collections
import re

import pytest

from experiments.pages import plots, readme
from experiments.papers import suite
from experiments.runs.records import Store, describe, slug
from experiments.runs.table import Results
from experiments.runs.verdicts import judge
from tests.experiments.small_settings import SmallPaper

PAPERS = [pytest.param(paper, id=suite.name_of(paper)) for paper in suite.TABLES]


@pytest.mark.parametrize("paper", PAPERS)
def test_papers_say_what_they_are(paper):
    citation = readme.citation(paper)
    assert "arXiv:" in citation
    assert f"python -m experiments run {suite.name_of(paper)}" in paper.__doc__
    remarks = " ".join(readme.remarks(paper))
    assert "Cost:" in remarks and "Expected:" in remarks
    assert "\n" not in remarks and "python -m experiments run" not in remarks


@pytest.mark.parametrize("paper", PAPERS)
def test_rows_have_different_names_and_settings(paper):
    names = [row.name for row in paper.ROWS]
    assert len(set(names)) == len(names)
    assert len({slug(row.setting) for row in paper.ROWS}) == len(names)
    assert all(row.seeds >= 1 and describe(row.setting) for row in paper.ROWS)


@pytest.mark.parametrize("paper", PAPERS)
def test_numbers_of_papers_have_a_source_and_answer_to_a_row(paper):
    names = {"", *(row.name for row in paper.ROWS)}
    for number in paper.PAPER:
        assert number.source and number.unit and number.row in names


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_are_unresolved_without_records_and_about_rows(paper):
    headlines = {row.name: row.setting.headline for row in paper.ROWS}
    nothing = Results({name: [] for name in headlines}, headlines)
    assert {verdict.word for verdict in judge(paper.CLAIMS, nothing)} <= {"unresolved"}
    record = {"result": collections.defaultdict(lambda: 0.5)}
    everything = Results({name: [record] * 3 for name in headlines}, headlines)
    judge(paper.CLAIMS, everything)
    terms = [term for claim in paper.CLAIMS for test in claim.tests for term in terms_of(test)]
    assert all(term.row in headlines for term in terms)


def terms_of(test):
    return getattr(test, "terms", ())


def written(tmp_path, values):
    store = Store(tmp_path / "results")
    for name, seed, accuracy in values:
        setting = next(row.setting for row in SmallPaper.ROWS if row.name == name)
        store.write(setting, seed, {"accuracy": accuracy, "sparsity": 0.9, "ms_per_step": 4.0})
    page = tmp_path / "experiments" / "README.md"
    page.parent.mkdir()
    readme.write(
        [SmallPaper()], ["small"], store, readme=page, pictures=tmp_path / "docs" / "plots"
    )
    return page.read_text()


def test_the_page_has_numbers_spreads_and_verdicts(tmp_path):
    values = [("a 90 %", seed, value) for seed, value in enumerate((0.80, 0.82, 0.81, 0.1))]
    values += [("b 90 %", seed, value) for seed, value in enumerate((0.70, 0.71, 0.72))]
    page = written(tmp_path, values)
    assert (
        "| a on ImageNet | 71.25 % top-1 (table 1) | a 90 % | a |  | 81.00 ± 1.00 %, "
        "3 seeds, 1 more collapsed |" in page
    )
    assert "| z on ImageNet | 10 % top-1 (table 1) |  |  |  |  |  |" in page
    assert "b 90 % | b |  | 71.00 ± 1.00 %, 3 seeds |" in page
    assert "c | c |  | not run yet |" in page and "ms/step" not in page
    assert "- a > b: supported: +10.00 points (95 %: +7.73 to +12.27, p = " in page
    assert "; 1 of 4 of a 90 % collapsed" in page
    assert "- b > a: **contradicted**: -10.00 points" in page
    assert "- a > c: *unresolved*: too few seeds: 0 of c" in page
    assert "| 3 of 4 | 1 | 1 | 1 |" in page
    assert "](../docs/plots/small.svg)" in page
    picture = (tmp_path / "docs" / "plots" / "small.svg").read_text()
    assert "A small table" in picture and "90 %" in picture


def test_the_page_stands_without_any_record(tmp_path):
    page = written(tmp_path, [])
    assert page.count("not run yet") == 3 and "svg" not in page


def test_unknown_papers_are_named():
    with pytest.raises(SystemExit, match="got nobody2020; there are: all, zhu2017_gmp"):
        suite.find(("zhu2017_gmp", "nobody2020"))
    assert suite.find(("all",)) == list(suite.PAPERS)


def test_collapsed_points_stand_in_the_legend_and_leave_the_range_to_the_others(tmp_path):
    good = [plots.Point(0.9, 0.86, 0.01), plots.Point(0.98, 0.83, 0.01)]
    bad = [plots.Point(0.9, 0.47, 0.37), plots.Point(0.98, 0.10, 0.0)]
    lines = {"good": good, "bad": bad, "dense": [plots.Point(0.0, 0.87, 0.0)]}
    plots.accuracy_against_sparsity(tmp_path / "plot.svg", "a title", lines)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "plot.svg").read_text())
    assert {"a title", "good", "bad", "(47 % at 90 %, 10 % at 98 %)", "90", "98"} <= set(texts)
    ticks = [float(text) for text in texts if re.fullmatch(r"\d+(\.\d)?", text)]
    assert min(ticks) > 75
    plots.accuracy_against_sparsity(tmp_path / "plot.svg", "no seeds agree", {"bad": bad})
