"""All records as one CSV: a line a training, for tables and tests of the reader's own."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.pages.readme import allocation
from experiments.runs.records import ROOT, Store
from experiments.runs.table import Paper

FILE = ROOT / "docs" / "records.csv"
FIRST = (
    "papers",
    "row",
    "allocation",
    "seed",
    "headline",
    "value",
    "commit",
    "cpu",
    "device",
    "jax",
)


def write(
    papers: Sequence[Paper], names: Sequence[str], store: Store, *, file: Path = FILE
) -> None:
    """Write a line for each record, papers that share one in one cell.

    Columns are `FIRST`, then every number and word of a setting (`setting.steps`) and of a result
    (`result.accuracy`); histories stay in the records.
    """
    lines: dict[tuple[Path, int], dict[str, Any]] = {}
    for paper, name in zip(papers, names, strict=True):
        for row in paper.ROWS:
            for seed in store.seeds(row.setting):
                record = store.read(row.setting, seed)
                if record is None:
                    continue
                line = lines.setdefault((store.path(row.setting, seed), seed), {"papers": name})
                if "row" in line:
                    line["papers"] += f" {name}"
                    continue
                headline = row.setting.headline
                line |= {"row": row.name, "allocation": allocation(row), "seed": seed}
                line |= {"headline": headline, "value": record["result"][headline]}
                line |= {"commit": record["commit"]}
                line |= {key: record["machine"][key] for key in ("cpu", "device", "jax")}
                line |= dict(_flat("setting", record["setting"]))
                line |= dict(_flat("result", record["result"]))
    others = sorted({column for line in lines.values() for column in line} - set(FIRST))
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, [*FIRST, *others], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[key] for key in sorted(lines, key=str))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Numbers and words by dotted names; lists of anything else than those are left out."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part)
    elif isinstance(value, str | int | float):
        yield name, value
