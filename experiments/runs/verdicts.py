"""Verdicts on a page's claims: supported, contradicted or unresolved, by Welch and by Holm."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.runs.table import Claim, Contrast, Fact, MissingError, Results

LEVEL = 0.05
SUPPORTED, CONTRADICTED, UNRESOLVED = "supported", "contradicted", "unresolved"


class Estimate(NamedTuple):
    """A contrast's difference from its number, its 95 % interval and two-sided p-value.

    `few` counts the seeds of rows that have too few, `collapsed` those that collapsed of all.
    """

    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    few: tuple[tuple[str, int], ...] = ()
    collapsed: tuple[tuple[str, int, int], ...] = ()


class Verdict(NamedTuple):
    """What a page says of a claim, and why."""

    word: str
    reason: str


def judge(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """The verdict on each claim of a page.

    All contrasts of the page are one family of tests: a difference counts where its p-value passes
    Holm's step-down at 5 % and the estimate passes the margin of the contrast. So the best of
    several pays for having been chosen.
    """
    contrasts = [test for claim in claims for test in claim.tests if isinstance(test, Contrast)]
    estimates = [estimate(contrast, results) for contrast in contrasts]
    tested = [index for index, found in enumerate(estimates) if not found.few]
    adjusted = dict(zip(tested, holm([estimates[index].p for index in tested]), strict=True))
    found = iter(
        (contrast, own, adjusted.get(index, 1.0))
        for index, (contrast, own) in enumerate(zip(contrasts, estimates, strict=True))
    )
    return [_of_claim(claim, found, results) for claim in claims]


def _of_claim(
    claim: Claim, found: Iterator[tuple[Contrast, Estimate, float]], results: Results
) -> Verdict:
    """The verdict on a claim, whose contrasts are the next that were found."""
    words, reasons = [], []
    few: dict[str, int] = {}
    collapsed: dict[str, str] = {}
    for test in claim.tests:
        if isinstance(test, Fact):
            word, reason = _fact(test, results)
        else:
            contrast, own, p = next(found)
            word, reason = _word(contrast, own, p), "" if own.few else _numbers(contrast, own, p)
            few |= dict(own.few)
            collapsed |= {
                row: f"{lost} of {of} of {row} collapsed" for row, lost, of in own.collapsed
            }
        words.append(word)
        reasons += [reason] * bool(reason)
    if few:
        counts = ", ".join(f"{count} of {row}" for row, count in few.items())
        reasons.append(f"too few seeds: {counts}")
    return Verdict(_joined(words, claim.any_of), "; ".join([*reasons, *collapsed.values()]))


def estimate(contrast: Contrast, results: Results) -> Estimate:
    """Welch's interval and test of a sum of means, with Satterthwaite's degrees of freedom."""
    total, variance, below = -contrast.above, 0.0, 0.0
    collapsed, few = [], []
    for row, quantity, factor in contrast.terms:
        values, lost = standing(row, quantity, results)
        collapsed += [(row, lost, lost + len(values))] * (lost > 0)
        if len(values) < contrast.least:
            few.append((row, len(values)))
            continue
        part = factor**2 * float(np.var(values, ddof=1)) / len(values)
        total += factor * float(np.mean(values))
        variance, below = variance + part, below + part**2 / (len(values) - 1)
    if few:
        return Estimate(few=tuple(few), collapsed=tuple(collapsed))
    if not variance:
        p = float(total == 0)
        return Estimate(total, total, total, p, collapsed=tuple(collapsed))
    error, freedom = math.sqrt(variance), variance**2 / below
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(total) / error, freedom))
    return Estimate(total, total - half, total + half, p, collapsed=tuple(collapsed))


def standing(row: str, quantity: str | None, results: Results) -> tuple[list[float], int]:
    """A row's values without its collapsed seeds, and how many these are.

    A seed has collapsed whose headline is below half of the row's best: two kinds of outcomes have
    no common mean. Where all did, they are of one kind.
    """
    values, headlines = results.values(row, quantity), results.values(row)
    best = max(headlines, default=0.0)
    stood = [value for value, own in zip(values, headlines, strict=True) if own >= best / 2]
    return stood, len(values) - len(stood)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: the k-th smallest of n times n - k + 1, never falling."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _word(contrast: Contrast, found: Estimate, adjusted: float) -> str:
    if found.few or adjusted >= LEVEL or abs(found.difference) < contrast.margin:
        return UNRESOLVED
    return SUPPORTED if found.difference > 0 else CONTRADICTED


def _numbers(contrast: Contrast, found: Estimate, p: float) -> str:
    """The difference and its interval; against what, if that is not zero."""
    quantities = {quantity for _, quantity, _ in contrast.terms}
    points = all((quantity or "accuracy").startswith("accuracy") for quantity in quantities)
    form = (lambda value: f"{100 * value:+.2f}") if points else (lambda value: f"{value:+.3g}")
    show = lambda value: form(value + contrast.above)
    against = f"against {form(contrast.above)}, " if contrast.above else ""
    interval = f"{against}95 %: {show(found.low)} to {show(found.high)}"
    return f"{show(found.difference)}{' points' * points} ({interval}, p = {p:.2g})"


def _fact(fact: Fact, results: Results) -> tuple[str, str]:
    try:
        return (SUPPORTED if fact.holds(results) else CONTRADICTED), ""
    except MissingError as missing:
        return UNRESOLVED, f"{missing} is not measured"


def _joined(words: Sequence[str], any_of: bool) -> str:
    """Of all: one against decides; of any: one for decides."""
    decisive, other = (SUPPORTED, CONTRADICTED) if any_of else (CONTRADICTED, SUPPORTED)
    if decisive in words:
        return decisive
    return other if set(words) == {other} else UNRESOLVED
