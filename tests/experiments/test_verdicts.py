"""Verdicts are Welch's, corrected by Holm, with a margin; worked by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from experiments.runs.table import Claim, Contrast, Fact, MissingError, Results, Term, more, no_less
from experiments.runs.verdicts import estimate, holm, judge, standing

A, B = [0.80, 0.82, 0.84], [0.70, 0.71, 0.72]


def results_of(**rows):
    records = {
        name: [{"result": {"accuracy": value, "cost": 2 * value}} for value in values]
        for name, values in rows.items()
    }
    return Results(records, dict.fromkeys(rows, "accuracy"))


def word_of(claim, **rows):
    return judge([claim], results_of(**rows))[0].word


def test_an_estimate_is_welchs():
    found = estimate(more("a", "b"), results_of(a=A, b=B))
    assert found.difference == pytest.approx(0.11)
    # Variances of means 4e-4 / 3 and 1e-4 / 3; 25 / (16 / 2 + 1 / 2) = 2.94 degrees of freedom.
    half = stats.t.ppf(0.975, 25 / 8.5) * np.sqrt(5e-4 / 3)
    assert (found.low, found.high) == pytest.approx((0.11 - half, 0.11 + half))
    theirs = stats.ttest_ind(A, B, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


def test_a_contrast_may_have_any_number_of_terms_and_a_number_to_pass():
    terms = (Term("a"), Term("b", None, -1.0), Term("c", "cost", -0.5))
    found = estimate(Contrast(terms, above=-0.7), results_of(a=A, b=B, c=B))
    assert found.difference == pytest.approx(0.82 - 0.71 - 0.71 + 0.7)
    # (4 + 1 + 1)^2 / (16 / 2 + 1 / 2 + 1 / 2) = 4 degrees of freedom.
    half = stats.t.ppf(0.975, 4) * np.sqrt(6e-4 / 3)
    assert found.high - found.difference == pytest.approx(half)


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_clear_difference_decides_and_a_small_or_doubtful_one_does_not():
    claim = Claim("a > b", more("a", "b"))
    assert word_of(claim, a=A, b=B) == "supported"
    assert word_of(claim, a=B, b=A) == "contradicted"
    assert word_of(claim, a=A, b=[0.79, 0.81, 0.83]) == "unresolved"
    close = {"a": [0.8010, 0.8011, 0.8012], "b": [0.8, 0.8001, 0.8002]}
    assert judge([claim], results_of(**close))[0].reason.startswith(
        "+0.10 points (95 %: +0.08 to +0.12"
    )
    assert word_of(claim, **close) == "unresolved"
    assert word_of(Claim("a > b", more("a", "b", "cost")), **close) == "supported"


def test_no_less_allows_for_the_margin():
    claim = Claim("a >= b", no_less("a", "b"))
    even = [0.8, 0.8002, 0.8004]
    assert word_of(claim, a=even, b=even) == "supported"
    assert word_of(claim, a=[value - 0.01 for value in even], b=even) == "contradicted"
    (verdict,) = judge([claim], results_of(a=A, b=A))
    assert verdict.word == "unresolved"
    assert verdict.reason.startswith("+0.00 points (against -0.30, 95 %: -4.53 to +4.53, p = ")


def test_three_seeds_a_side_are_needed():
    (verdict,) = judge([Claim("a > b", more("a", "b"))], results_of(a=A, b=B[:2]))
    assert verdict == ("unresolved", "too few seeds: 2 of b")


def test_the_tests_of_a_page_share_one_error():
    rows = {"a": [0.80, 0.82, 0.84], "b": [0.75, 0.77, 0.79]}
    claim = Claim("a > b", more("a", "b"))
    p = estimate(claim.tests[0], results_of(**rows)).p
    assert 0.0125 < p < 0.05
    assert word_of(claim, **rows) == "supported"
    assert {v.word for v in judge([claim] * 4, results_of(**rows))} == {"unresolved"}


def test_the_best_of_three_pays_for_the_choice():
    rows = {"none": [0.75, 0.77, 0.79], "x": [0.80, 0.82, 0.84], "y": B, "z": [0.74, 0.77, 0.80]}
    best = Claim("best", *(more(name, "none") for name in "xyz"), any_of=True)
    assert word_of(Claim("x", more("x", "none")), **rows) == "supported"
    assert word_of(best, **rows) == "unresolved"
    assert word_of(best, **(rows | {"x": [0.90, 0.91, 0.92]})) == "supported"
    assert word_of(best, **(rows | {name: [0.5, 0.51, 0.52] for name in "xyz"})) == "contradicted"


def test_a_claim_of_several_needs_all_of_them():
    rows = {"a": A, "b": B, "c": [0.5, 0.51, 0.52]}
    falls = Claim("falls", more("a", "b"), more("b", "c"))
    assert word_of(falls, **rows) == "supported"
    assert word_of(falls, **(rows | {"c": A})) == "contradicted"
    assert word_of(falls, **(rows | {"c": A[:1]})) == "unresolved"


def test_collapsed_seeds_are_counted_apart_unless_all_are_alike():
    rows = results_of(a=[0.84, 0.10, 0.85, 0.86], b=B, c=[0.1, 0.1, 0.1])
    assert standing("a", None, rows) == ([0.84, 0.85, 0.86], 1)
    assert standing("a", "cost", rows) == (pytest.approx([1.68, 1.70, 1.72]), 1)
    assert standing("c", None, rows) == ([0.1, 0.1, 0.1], 0)
    better, lost = judge([Claim("a > b", more("a", "b")), Claim("b > c", more("b", "c"))], rows)
    assert better.word == lost.word == "supported"
    assert better.reason.endswith("; 1 of 4 of a collapsed")


def test_a_fact_is_what_the_records_say():
    def missing(results):
        raise MissingError("b")

    words = [
        judge([Claim("f", Fact(f))], results_of(a=A))[0]
        for f in (lambda r: r.mean("a") > 0.8, lambda r: r.mean("a") > 0.9, missing)
    ]
    assert [verdict.word for verdict in words] == ["supported", "contradicted", "unresolved"]
    assert words[2].reason == "b is not measured"


def test_equal_numbers_without_spread_are_no_difference():
    claim = Claim("a > b", more("a", "b"))
    assert word_of(claim, a=[0.8] * 3, b=[0.8] * 3) == "unresolved"
    assert word_of(claim, a=[0.8] * 3, b=[0.7] * 3) == "supported"
