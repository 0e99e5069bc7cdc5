"""What each layer of ours reaches of the machine's measured peak."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(row: dict[str, Any]) -> None:
    """Print the layers of a case as they were measured when it was compiled."""
    layers = row["engines"].get("ours", {}).get("layers", [])
    rows = [layer for layer in layers if layer["microseconds"]]
    if not rows:
        return
    peak, bound = row["peak"]["fma gflops"], row["peak"]["fma with loads gflops"]
    title = f"{row['net']}: FMA peak {peak:.0f} GFLOP/s, with a load for each {bound:.0f}"
    table = Table(title=title)
    for column in ("layer", "pattern", "zeros", "us", "GFLOP/s useful (effective)", "of peak"):
        table.add_column(column)
    table.add_column("of load bound")
    for layer in rows:
        useful, effective = rates(layer)
        table.add_row(
            layer["path"],
            layer["pattern"],
            f"{layer['sparsity']:.0%}",
            f"{layer['microseconds']:.0f}",
            f"{useful:.0f} ({effective:.0f})",
            f"{useful / peak:.0%}",
            f"{useful / bound:.0%}",
        )
    Console(width=150).print(table)


def rates(layer: dict[str, Any]) -> tuple[float, float]:
    """Useful and effective GFLOP/s of one call."""
    per_call = 2 / layer["microseconds"] / 1e3
    return layer["sparse_multiply_adds"] * per_call, layer["multiply_adds"] * per_call
