"""The file of results: a machine and its cases, which later runs replace one by one."""

import datetime
import json
from pathlib import Path
from typing import Any

import jax

from benchmarks.peers.bars import BARS, Bar, cases
from benchmarks.peers.case import Case
from benchmarks.peers.process import ROOT
from experiments.data.stored import read_json
from experiments.runs.cores import cpu_name
from sparsejax.ops._ffi import instruction_set

FILE = ROOT / "benchmarks" / "results" / "peers.json"
PARTS = {"machine": dict, "cases": list}
CURE = "delete it to measure anew"


def machine() -> dict[str, Any]:
    """What the times are of."""
    return {"cpu": cpu_name(), "instruction set": instruction_set(), "jax": jax.__version__}


def read(file: Path) -> dict[str, Any]:
    """The results so far; those of another machine do not count."""
    if file.exists():
        found = read_json(file, PARTS, CURE)
        if found["machine"] == machine():
            return found
    return {"machine": machine(), "cases": []}


def merge(file: Path, row: dict[str, Any]) -> None:
    """Write a case's row in the place of the one that was there."""
    found = read(file)
    row = {**row, "day": datetime.date.today().isoformat()}
    rows = {key(other): other for other in found["cases"]}
    rows[key(row)] = row
    file.parent.mkdir(parents=True, exist_ok=True)
    found["cases"] = sorted(rows.values(), key=_place)
    file.write_text(json.dumps(found, indent=1) + "\n")


def _place(row: dict[str, Any]) -> tuple[int, int, int]:
    """Where a row stands in the tables: batch, threads, then as the cases do."""
    wanted, case = cases(), key(row)
    return case.batch, case.threads, wanted.index(case[:3]) if case[:3] in wanted else len(wanted)


def key(row: dict[str, Any]) -> Case:
    """Which case a row is of."""
    return Case(**{name: row[name] for name in Case._fields})


def ratio(row: dict[str, Any], peer: str) -> float | None:
    """Our time as a fraction of a peer's, where both were timed."""
    ours, theirs = (row["engines"].get(name, {}).get("ms") for name in ("ours", peer))
    return ours / theirs if ours and theirs else None


def judged(rows: list[dict[str, Any]]) -> list[tuple[Bar, dict[str, Any], float]]:
    """The bars whose case is there, on any batch and threads, with the ratio that came out."""
    found = []
    for row in rows:
        for bar in BARS:
            value = ratio(row, bar.peer)
            if value and (bar.net, bar.pattern, bar.sparsity) == key(row)[:3]:
                found.append((bar, row, value))
    return found
