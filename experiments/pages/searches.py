"""A page for each table of searches: every trial of its first seed, by what it costs and gains."""

from pathlib import Path

import sparsejax as sj
from experiments.runs.records import ROOT, Store
from experiments.runs.table import Paper

PLOTS = ROOT / "docs" / "plots"
WORDS = {"cost": "cost as the row's name says", "validation_accuracy": "validation accuracy"}


def write(paper: Paper, name: str, store: Store, *, folder: Path = PLOTS) -> list[Path]:
    """Write `<name>.html`, or several where the rows have different costs; the files.

    Costs of different settings, such as bytes and modelled milliseconds, have a page each, named
    after the rows' names up to their comma.
    """
    pages: dict[tuple[str, ...], dict[str, list[sj.search.Trial]]] = {}
    for row in paper.ROWS:
        record = store.read(row.setting, 0)
        if record is None or "trials" not in record["result"]:
            continue
        axes = record["result"]["axes"]
        first, comma, _ = row.name.partition(", ")
        trials = [
            sj.search.Trial(number, {}, own[1], dict(zip(axes, own, strict=True)))
            for number, own in enumerate(record["result"]["trials"])
        ]
        pages.setdefault((first * bool(comma), *axes), {})[row.name] = trials
    files = []
    for (first, cost, gain), searches in pages.items():
        file = folder / f"{name}{'_' * bool(first)}{first.replace(' ', '_')}.html"
        title = f"{paper.TITLE}{': ' * bool(first)}{first}, seed 0"
        words = {own: WORDS.get(own, own.replace("_", " ")) for own in (cost, gain)}
        file.write_text(
            sj.search.trade_off(searches, gain=gain, cost=cost, title=title, words=words)
        )
        files.append(file)
    return files
