"""What the kernels are on ARM: executed instructions per useful fmla, and fmla per cycle.

    python -m benchmarks.arm             build, check, count, compare with the baseline
    python -m benchmarks.arm --update    and make what was counted the baseline

The kernels of products, windows and elementwise steps are cross-built and run under qemu's user
emulation, where their results are compared with sums in double precision and a plugin counts what
they execute: a figure without noise. llvm-mca says how many fmla a cycle the hottest loop could
reach on a Neoverse N1, which has two units. Neither is a time: emulated times say nothing about a
real ARM core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import as_markdown
from benchmarks.arm import count
from benchmarks.arm.tools import ROOT, MissingError
from experiments.data.stored import read_json

BASELINE = Path(__file__).with_name("baseline.json")
PAGE = ROOT / "benchmarks" / "results" / "arm.md"  # the documentation includes it
COUNTED = "instructions per useful fmla"
STATIC = "static fmla per cycle"
MAY_GROW = 1.03
# Kind of layout -> at most that many instructions per useful fmla, at least that many fmla a cycle.
TARGETS = {"1x1": (2.25, 1.5), "4x1": (1.8, 1.95)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--update", action="store_true", help="write the baseline")
    several.add_argument("--counts-only", action="store_true", help="without llvm-mca")
    options = parser.parse_args()
    try:
        found = measure(with_analyser=not options.counts_only)
    except MissingError as error:
        print(f"arm counts: SKIPPED, {error}")
        return
    show(found)
    if options.update:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(markdown(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    compare(found)


def measure(*, with_analyser: bool) -> dict[str, Any]:
    """The counts of every case."""
    bench = count.build(with_analyser=with_analyser)
    counts = {name: count.count(bench, case) for name, case in count.CASES.items()}
    return {"compiler": count.compiler_version(), "sparsity": count.SPARSITY, "counts": counts}


def show(found: dict[str, Any]) -> None:
    """Print a table, with the targets."""
    rows = found["counts"]
    table = Table(title=f"{found['sparsity']:.0%} zeros, {found['compiler']}")
    for column in ("", *next(iter(rows.values()))):
        table.add_column(column)
    for name, row in rows.items():
        table.add_row(name, *_cells(row))
    Console(width=120).print(table)
    for kind, (most, least) in TARGETS.items():
        layers = {name.split(", ")[-1] for name in rows if name.startswith(kind)}
        for layer in sorted(layers):
            best = leanest(rows, kind, layer)
            line = f"{kind}, {layer}: {best[COUNTED]:.2f} instructions (wanted at most {most})"
            if STATIC in best:
                line += f", {best[STATIC]:.2f} fmla per cycle (wanted at least {least})"
            print(line)


def markdown(found: dict[str, Any]) -> str:
    """The counts as a table."""
    rows = found["counts"]
    head = ["", *next(iter(rows.values()))]
    lines = [[name, *_cells(row)] for name, row in rows.items()]
    table = as_markdown(head, ([*line, *[""] * (len(head) - len(line))] for line in lines))
    layers = "layers as rows x cols x pixels, maps as channels x rows x cols / stride"
    caption = f"{found['sparsity']:.0%} zeros, {layers}, {found['compiler']}."
    return f"{caption}\n\n{table}\n"


def _cells(row: dict[str, float]) -> list[str]:
    return [f"{value:.2f}" for value in row.values()]


def leanest(rows: dict[str, Any], kind: str, layer: str) -> dict[str, float]:
    """The counts of the way of a kind that executes least on a layer."""
    chosen = [
        row for name, row in rows.items() if name.startswith(kind) and name.endswith(f" {layer}")
    ]
    return min(chosen, key=lambda row: row[COUNTED])


def compare(found: dict[str, Any]) -> None:
    """End with an error when a count grew by more than 3 % against the baseline."""
    baseline = read_json(
        BASELINE, {"compiler": str, "counts": dict}, "write it again with --update"
    )
    if baseline["compiler"] != found["compiler"]:
        print(f"arm counts: NOT COMPARED, the baseline is of {baseline['compiler']}")
        return
    grown = {
        name: f"{before[COUNTED]} -> {found['counts'][name][COUNTED]}"
        for name, before in baseline["counts"].items()
        if found["counts"][name][COUNTED] > MAY_GROW * before[COUNTED]
    }
    if grown:
        raise SystemExit(
            f"arm counts: {COUNTED} grew by more than 3 %: {grown}; make the kernel lean again, or "
            "run python -m benchmarks.arm --update and say in the commit why."
        )
    print(f"arm counts: {len(baseline['counts'])} within 3 % of the baseline")


if __name__ == "__main__":
    main()
