"""experiments/README.md and its pictures, generated from the records."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.pages import plots
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
seeds; sparsity is exact zeros / weights of the leaves that are pruned, counted after training.
ms/step is what the run took beside whatever else the machine did; docs/methods.md has times that
can be compared.
"""
VERDICTS = {True: "holds", False: "**does not hold**", None: "not measured yet"}
OURS = ("net, data", "ours", "sparsity", "ms/step")


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
    lines = [_line(("paper", "trainings run", "trends that hold")), _line(["---"] * 3)]
    machines = set()
    for paper, found in zip(papers, results, strict=True):
        verdicts = [claim.check(found) for claim in paper.CLAIMS]
        decided = [verdict for verdict in verdicts if verdict is not None]
        run = sum(min(len(found.records[row.name]), row.seeds) for row in paper.ROWS)
        wanted = sum(row.seeds for row in paper.ROWS)
        trends = [f"{sum(decided)} of {len(decided)}"] * bool(decided)
        trends += [f"{len(verdicts) - len(decided)} open"] * (len(decided) < len(verdicts))
        anchor = re.sub(r"[^\w -]", "", paper.TITLE.lower()).replace(" ", "-")
        lines.append(
            _line((f"[{paper.TITLE}](#{anchor})", f"{run} of {wanted}", ", ".join(trends)))
        )
        machines |= {_machine(record) for records in found.records.values() for record in records}
    where = f"\nRun on: {'; '.join(sorted(machines))}." if machines else ""
    return "\n".join([*lines, where])


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
    verdicts = [f"- {verdict(claim, results)}" for claim in paper.CLAIMS]
    return "\n".join([*lines, "", *verdicts, ""])


def citation(paper: Paper) -> str:
    """The second paragraph of the file's docstring."""
    return " ".join((paper.__doc__ or "").split("\n\n")[1].split())


def remarks(paper: Paper) -> list[str]:
    """What the file's docstring says after the command: cost, what is expected, what was found."""
    paragraphs = (paper.__doc__ or "").split("\n\n")[3:]
    return [line for text in paragraphs for line in (" ".join(text.split()), "")]


def verdict(claim: Claim, results: Results) -> str:
    """The claim and whether it holds."""
    return f"{claim.text}: {VERDICTS[claim.check(results)]}"


def table(paper: Paper, results: Results) -> list[str]:
    """One line per number of the paper and per row of ours, side by side where they answer."""
    head = ("the paper's setting", "its number (source)", "our row", *OURS)
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [
        _line((*_theirs(number), *[""] * (1 + len(OURS))))
        for number in paper.PAPER
        if not number.row
    ]
    for row in paper.ROWS:
        numbers = [number for number in paper.PAPER if number.row == row.name]
        theirs = [" <br> ".join(cells) for cells in zip(*map(_theirs, numbers), strict=True)]
        lines.append(_line((*(theirs or ("", "")), *_ours(row, results))))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _theirs(number: PaperNumber) -> tuple[str, str]:
    return number.setting, f"{number.value:g} {number.unit} ({number.source})"


def _ours(row: Row, results: Results) -> tuple[str, ...]:
    records = results.records[row.name]
    if not records:
        return row.name, place(row), "not run yet", "", ""
    mean, spread = results.mean(row.name), results.spread(row.name)
    percent = row.setting.headline == "accuracy"
    show = lambda value: f"{100 * value:.2f}" if percent else f"{value:.4g}"
    number = show(mean) if spread is None else f"{show(mean)} ± {show(spread)}"
    unit = "%" if percent else row.setting.headline
    seeds = f"{len(records)} seed{'s' * (len(records) > 1)}"
    return (
        row.name,
        place(row),
        f"{number} {unit}, {seeds}",
        _mean(results, row, "sparsity", 100, ".2f", " %"),
        _mean(results, row, "ms_per_step", 1, ".1f", ""),
    )


def _mean(results: Results, row: Row, quantity: str, factor: float, form: str, unit: str) -> str:
    """A quantity that a result may have or lack."""
    known = [r["result"][quantity] for r in results.records[row.name] if r["result"].get(quantity)]
    return f"{factor * sum(known) / len(known):{form}}{unit}" if known else ""


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
