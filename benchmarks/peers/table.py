"""Results as lines, tables and a picture."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from rich.console import Console
from rich.table import Table

from benchmarks import as_markdown
from benchmarks.peers.results import judged, key, ratio
from benchmarks.peers.rounds import CANNOT
from experiments.pages.figures import Look, draw, plain_axes

# Between light and dark: the picture stands on either ground.
LOOK = Look("#7a8394", "#7a8394", "#98a2b355", "#98a2b3", "#12a594", "none", 7.6)
MARKERS = "sDv^<>P"


def line(row: dict[str, Any]) -> str:
    """One case as one line."""
    cells = [f"{name} {_cell(row, name)}" for name in row["engines"]]
    return f"{key(row)}: {', '.join(cells)}"


def show(found: dict[str, Any]) -> None:
    """Print the times and what became of the bars."""
    console = Console(width=180)
    for title, head, rows in _tables(found):
        table = Table(title=title)
        for column in head:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for reason in _reasons(found["cases"]):
        console.print(reason)


def markdown(found: dict[str, Any]) -> str:
    """The same tables for the documentation."""
    machine = found["machine"]
    parts = [f"{machine['cpu']}, {machine['instruction set']}, jax {machine['jax']}."]
    for title, head, rows in _tables(found):
        parts.append(f"**{title}**\n\n{as_markdown(head, rows)}")
    reasons = _reasons(found["cases"])
    return "\n\n".join(parts + reasons) + "\n"


def _tables(found: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, head and cells: one table for each batch and number of threads, one for the bars."""
    tables = []
    cases = found["cases"]
    for batch, threads in sorted({(row["batch"], row["threads"]) for row in cases}):
        rows = [row for row in cases if (row["batch"], row["threads"]) == (batch, threads)]
        names = list(dict.fromkeys(name for row in rows for name in row["engines"]))
        title = f"Milliseconds (ours / theirs), batch {batch}, threads {threads}"
        cells = [
            [row["net"], _zeros(row), *(_cell(row, name) for name in names), _rates(row)]
            for row in rows
        ]
        head = ["", "zeros", *names, "GFLOP/s useful (effective)"]
        tables.append((title, head, cells))
    cells = [
        [
            str(key(row)),
            bar.peer,
            f"{value:.3f}",
            f"{bar.at_most:.3g}",
            f"{bar.stretch:.3g}" if bar.stretch else "",
            "reached" if value <= bar.at_most else "missed",
        ]
        for bar, row, value in judged(cases)
    ]
    if cells:
        head = ["", "against", "ours / theirs", "at most", "stretch", ""]
        tables.append(("What was to be reached", head, cells))
    if firsts := _first_results(cases):
        head = ["", "empty cache", "warm cache"]
        tables.append(("Seconds from sj.compile to the first result", head, firsts))
    return tables


def _first_results(rows: list[dict[str, Any]]) -> list[list[str]]:
    """How long compiling and the first call took."""
    kinds = [f"first result, {cache} cache, s" for cache in ("empty", "warm")]
    times = [(key(row), row["engines"].get("ours", {})) for row in rows]
    return [
        [str(case), *(f"{ours[kind]:.2f}" for kind in kinds)]
        for case, ours in times
        if kinds[0] in ours
    ]


def _zeros(row: dict[str, Any]) -> str:
    return f"{row['sparsity']:.0%} {row['pattern']}" if row["sparsity"] else "dense"


def _cell(row: dict[str, Any], name: str) -> str:
    result = row["engines"].get(name, {})
    if "ms" not in result:
        return "none" if CANNOT in result else ""
    fraction = ratio(row, name)
    text = f"{result['ms']:.2f}" if result["ms"] >= 1 else f"{result['ms']:.3f}"
    return text if name == "ours" or not fraction else f"{text} ({fraction:.2f})"


def _rates(row: dict[str, Any]) -> str:
    ours_ms = row["engines"].get("ours", {}).get("ms")
    if not ours_ms:
        return ""
    useful, effective = (1e3 * row[f"{kind} gflop"] / ours_ms for kind in ("useful", "effective"))
    return f"{useful:.0f} ({effective:.0f})"


def _reasons(rows: list[dict[str, Any]]) -> list[str]:
    """Why engines could not be had, each reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, result in row["engines"].items():
            if CANNOT in result:
                found.setdefault((name, result[CANNOT]), []).append(str(key(row)))
    return [
        f"{name} {CANNOT} for {'; '.join(cases)}: {why}" for (name, why), cases in found.items()
    ]


def picture(rows: list[dict[str, Any]]) -> str:
    """Every case on one thread, batch 1: ours as a filled dot among the others, on a log axis."""
    rows = [row for row in rows if (row["batch"], row["threads"]) == (1, 1)]
    names = list(dict.fromkeys(name for row in rows for name in row["engines"]))
    figure = Figure((LOOK.width, 0.3 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for name, marker in zip(
        ["ours", *(n for n in names if n != "ours")], "o" + 9 * MARKERS, strict=False
    ):
        points = [
            (row["engines"][name]["ms"], -i)
            for i, row in enumerate(rows)
            if "ms" in row["engines"].get(name, {})
        ]
        style = (
            {"color": LOOK.ours, "s": 64, "zorder": 3}
            if name == "ours"
            else {"facecolors": "none", "edgecolors": LOOK.plain, "s": 30}
        )
        axes.scatter(*zip(*points, strict=True), marker=marker, label=name, **style)
    plain_axes(axes, LOOK)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_xlabel("milliseconds, one core, batch 1", color=LOOK.muted, fontsize=9)
    axes.set_yticks([-i for i in range(len(rows))], [f"{r['net']}, {_zeros(r)}" for r in rows])
    axes.tick_params(axis="y", colors=LOOK.text, labelsize=8)
    legend = figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(LOOK.text)
    return draw(figure)
