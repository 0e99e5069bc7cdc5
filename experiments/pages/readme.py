"""experiments/README.md and its pictures, generated from the records."""

import os
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sparsejax as sj
from experiments.pages import plots
from experiments.runs import verdicts
from experiments.runs.records import ROOT, Store
from experiments.runs.table import Claim, Paper, PaperNumber, Results, Row
from experiments.settings.classify import Classify

README = ROOT / "experiments" / "README.md"
PLOTS = ROOT / "docs" / "plots"
HEAD = """# Experiments

Written by `python -m experiments table` from the records in `results/`; how to run and add some is
in [papers/suite.py](papers/suite.py). The papers' numbers are on their own data and networks, ours
on small ones with one budget for all methods of a table: the trends are to be compared, not the
numbers. Ours are those of the last step with hard masks, mean and standard deviation over the
seeds; a seed below half of the row's best has collapsed and is counted apart. Allocation is how the
sparsity is spread over the layers: uniform, ERK, or by one threshold for the network (global).
Sparsity is exact zeros / weights of the leaves that are pruned, counted after training; a table has
the density of the sparsest layer, the kept weights that are 0.0 and the multiply-adds left where
its records do.

A claim is *supported* or *contradicted* where the difference of means passes a test for unequal
variances (Welch's) at 5 %, corrected for the number of tests of its table (Holm's), and is at least
0.3 points of accuracy; a claim that something is no worse allows for those 0.3 points. Everything
else is *unresolved*, and so is what has fewer than three seeds a side. A claim of several
differences needs all of them, one of the best of several any of them, each tested.
"""
MARKED = {
    verdicts.SUPPORTED: "supported",
    verdicts.CONTRADICTED: "**contradicted**",
    verdicts.UNRESOLVED: "*unresolved*",
}
OURS = ("net, data", "allocation", "ours", "sparsity")


class Extra(NamedTuple):
    """A column of tables whose records have the quantity."""

    title: str
    quantity: str
    factor: float
    form: str
    unit: str


EXTRAS = (
    Extra("sparsest layer", "smallest_density", 100, ".2f", " % kept"),
    Extra("dead", "dead_weights", 1, ".0f", ""),
    Extra("multiply-adds", "multiply_adds_left", 100, ".1f", " %"),
    Extra("cost, of 8 bits everywhere", "cost_left", 100, ".1f", " %"),
    Extra("mJ modelled, example_mobile", "modelled_joules_mobile", 1e3, ".3g", ""),
    Extra("mJ modelled, example_fpga", "modelled_joules_fpga", 1e3, ".3g", ""),
    Extra("ms by the table", "milliseconds", 1, ".3g", ""),
)


def write(
    papers: Sequence[Paper],
    names: Sequence[str],
    store: Store,
    *,
    readme: Path = README,
    pictures: Path = PLOTS,
) -> None:
    """Write the page and the pictures of all papers.

    Args:
        papers, names: the papers and their names on the command line.
        store: of the records.
        readme, pictures: the file and the folder to write.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    results = [store.results(paper) for paper in papers]
    parts = [HEAD, overview(papers, results), *_networks(papers, results, readme, pictures)]
    for paper, name, found in zip(papers, names, results, strict=True):
        parts.append(section(paper, name, found))
        if plots.paper(pictures / f"{name}.svg", paper, found):
            parts.append(_image(paper.TITLE, pictures / f"{name}.svg", readme))
    readme.write_text("\n".join(part.rstrip() + "\n" for part in parts))


def overview(papers: Sequence[Paper], results: Sequence[Results]) -> str:
    """One line per paper, and the machines."""
    head = ("paper", "trainings run", *MARKED)
    lines = [_line(head), _line(["---"] * len(head))]
    machines = set()
    for paper, found in zip(papers, results, strict=True):
        words = [verdict.word for verdict in verdicts.judge(paper.CLAIMS, found)]
        run = sum(min(len(found.records[row.name]), row.seeds) for row in paper.ROWS)
        wanted = sum(row.seeds for row in paper.ROWS)
        counts = [str(words.count(word) or "") for word in MARKED]
        lines.append(_line((f"[{paper.TITLE}](#{anchor(paper)})", f"{run} of {wanted}", *counts)))
        machines |= {_machine(record) for records in found.records.values() for record in records}
    where = f"\nRun on: {'; '.join(sorted(machines))}." if machines else ""
    return "\n".join([*lines, where])


def anchor(paper: Paper) -> str:
    """The name of a paper's heading in links."""
    return re.sub(r"[^\w -]", "", paper.TITLE.lower()).replace(" ", "-")


def _machine(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    cores = f"{machine['cores']} core{'s' * (machine['cores'] > 1)}"
    return f"{machine['cpu']}, {cores}, jax {machine['jax']}"


def section(paper: Paper, name: str, results: Results) -> str:
    """A paper's heading, citation, remarks, table and claims."""
    lines = [
        f"## {paper.TITLE}",
        "",
        citation(paper),
        "",
        f"`python -m experiments run {name}`",
        "",
        *remarks(paper),
    ]
    lines += table(paper, results)
    judged = zip(paper.CLAIMS, verdicts.judge(paper.CLAIMS, results), strict=True)
    lines += ["", *(f"- {verdict(claim, found)}" for claim, found in judged), ""]
    return "\n".join(lines)


def citation(paper: Paper) -> str:
    """The second paragraph of the file's docstring."""
    return " ".join((paper.__doc__ or "").split("\n\n")[1].split())


def remarks(paper: Paper) -> list[str]:
    """What the file's docstring says after the command: cost, what is expected, what was found."""
    paragraphs = (paper.__doc__ or "").split("\n\n")[3:]
    return [line for text in paragraphs for line in (" ".join(text.split()), "")]


def verdict(claim: Claim, found: verdicts.Verdict) -> str:
    """The claim, what became of it, and why."""
    reason = f": {found.reason}" if found.reason else ""
    return f"{claim.text}: {MARKED[found.word]}{reason}"


def table(paper: Paper, results: Results) -> list[str]:
    """One line per number of the paper and per row of ours, side by side where they answer."""
    extras = [extra for extra in EXTRAS if any(_mean(results, row, extra) for row in paper.ROWS)]
    ours = (*OURS, *(extra.title for extra in extras))
    head = ("the paper's setting", "its number (source)", "our row", *ours)
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [
        _line((*_theirs(number), *[""] * (1 + len(ours))))
        for number in paper.PAPER
        if not number.row
    ]
    for row in paper.ROWS:
        numbers = [number for number in paper.PAPER if number.row == row.name]
        theirs = [" <br> ".join(cells) for cells in zip(*map(_theirs, numbers), strict=True)]
        more = (_mean(results, row, extra) for extra in extras)
        lines.append(_line((*(theirs or ("", "")), *_ours(row, results), *more)))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _theirs(number: PaperNumber) -> tuple[str, str]:
    return number.setting, f"{number.value:g} {number.unit} ({number.source})"


SPARSITY = Extra("sparsity", "sparsity", 100, ".2f", " %")


def _ours(row: Row, results: Results) -> tuple[str, ...]:
    if not results.records[row.name]:
        return row.name, place(row), allocation(row), "not run yet", ""
    values, num_collapsed = verdicts.standing(row.name, None, results)
    percent = row.setting.headline == "accuracy"
    show = lambda value: f"{100 * value:.2f}" if percent else f"{value:.4g}"
    number = show(statistics.fmean(values))
    if len(values) > 1:
        number += f" ± {show(statistics.stdev(values))}"
    unit = "%" if percent else row.setting.headline
    seeds = f"{len(values)} seed{'s' * (len(values) > 1)}"
    seeds += f", {num_collapsed} more collapsed" * (num_collapsed > 0)
    sparsity = _mean(results, row, SPARSITY) if allocation(row) else ""
    return row.name, place(row), allocation(row), f"{number} {unit}, {seeds}", sparsity


def allocation(row: Row) -> str:
    """How the row's sparsity is spread over the layers; nothing where no weight is pruned."""
    setting: Any = row.setting
    own = getattr(setting, "training", setting)
    recipe = getattr(setting, "method", getattr(own, "method", None))
    pattern = getattr(own, "pattern", None)
    if isinstance(pattern, sj.NM):
        return "by the pattern"
    if not getattr(own, "sparsity", getattr(setting, "sparsity", 0.0)):
        return ""
    rule = getattr(own, "allocate", sj.allocate.uniform)
    return getattr(recipe, "allocation", NAMES.get(rule.__name__, rule.__name__.replace("_", " ")))


NAMES = {"erk": "ERK"}


def _mean(results: Results, row: Row, extra: Extra) -> str:
    """A quantity that a result may have or lack."""
    found = [record["result"].get(extra.quantity) for record in results.records[row.name]]
    known = [value for value in found if value is not None]
    if not known:
        return ""
    return f"{extra.factor * statistics.fmean(known):{extra.form}}{extra.unit}"


def place(row: Row) -> str:
    """The net and the data of a row, of its first training if it has several."""
    setting: Any = row.setting
    setting = getattr(setting, "pretraining", getattr(setting, "training", setting))
    functions = [getattr(setting, name, None) for name in ("net", "data")]
    names = [getattr(f, "__name__", f) for f in functions if f is not None]
    return ", ".join(map(str, names)) or setting.label


def _networks(
    papers: Sequence[Paper], results: Sequence[Results], readme: Path, pictures: Path
) -> list[str]:
    """A picture per network and data set with the rows of all papers that are plain trainings."""
    curves: dict[str, dict[str, list[plots.Point]]] = {}
    drawn = set()  # a setting may stand in several papers, under different names
    for paper, found in zip(papers, results, strict=True):
        for row in paper.ROWS:
            point = plots.point(row, found)
            if point is not None and isinstance(row.setting, Classify) and row.setting not in drawn:
                drawn.add(row.setting)
                curves.setdefault(place(row), {}).setdefault(plots.series(row), []).append(point)
    parts = ["## Accuracy against sparsity"] * bool(curves)
    for where, lines in curves.items():
        if all(point.sparsity == 0 for points in lines.values() for point in points):
            continue
        file = pictures / (re.sub(r"\W+", "_", where) + ".svg")
        plots.accuracy_against_sparsity(file, where, lines)
        parts.append(_image(where, file, readme))
    return parts


def _image(text: str, file: Path, readme: Path) -> str:
    return f"![{text}]({Path(os.path.relpath(file, readme.parent)).as_posix()})\n"
