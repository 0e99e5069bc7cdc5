"""One HTML file with what ran when on each engine, for screens of any size and theme."""

from html import escape

from sparsejax.deploy.board import Ran, Run

COLORS = ("#2a78d6", "#1baf7a", "#eda100", "#8a63d2", "#eb6834", "#4aa3a2", "#b0567f", "#7a8a3c")
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1a; --page: #fcfcfb; --line: #d9d8d4;
  --late: #d03b3b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ecebe8; --page: #161615; --line: #3b3a37 }
}
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif }
.scroll { overflow-x: auto }
svg { min-width: 50rem; width: 100%; height: auto; font: 12px system-ui, sans-serif }
text { fill: var(--ink) } line { stroke: var(--line) }
.late { stroke: var(--late); stroke-width: 2.5 }
td, th { padding: .15rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .5em }
"""
WIDTH, LEFT, LANE, BAR = 1000, 80, 44, 28


def timeline(
    run: Run, *, title: str = "Timeline", begin_ns: int = 0, end_ns: int | None = None
) -> str:
    """A page with a bar for each job on its engine's line, red-rimmed where it ended late.

    It needs no other file and no network. Hovering over a bar tells its times.

    Args:
      run: of `simulate` or `run_live`.
      title: above it.
      begin_ns, end_ns: what is drawn of the run; until the horizon by default. The table below is
        about the whole run.

    Example:
      >>> task = sj.deploy.Task("detect", {"core0": 30}, 100)
      >>> run = sj.deploy.simulate(sj.deploy.Pipeline((task,)), horizon_ns=300)
      >>> sj.deploy.timeline(run).count("<rect")
      3
    """
    end = run.horizon_ns if end_ns is None else end_ns
    if not 0 <= begin_ns < end:
        raise ValueError(f"timeline needs 0 <= begin_ns < end_ns, got {begin_ns} and {end}.")
    names = sorted({ran.job.task.name for ran in run.ran})
    color = {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}
    engines = sorted({ran.engine for ran in run.ran})
    shown = [ran for ran in run.ran if ran.end_ns > begin_ns and ran.begin_ns < end]
    at = lambda ns: (
        LEFT + (WIDTH - LEFT) * (min(max(ns, begin_ns), end) - begin_ns) / (end - begin_ns)
    )
    height = LANE * len(engines) + 30
    marks = [begin_ns + (end - begin_ns) * tenth // 10 for tenth in range(11)]
    drawn = [
        *(f'<line x1="{at(t):.1f}" x2="{at(t):.1f}" y1="0" y2="{height - 24}"/>' for t in marks),
        *(
            _label(at(t), height - 8, f"{t / 1e6:g} ms", "end" if t == end else "middle")
            for t in marks
        ),
        *(_label(0, LANE * lane + 24, engine, "start") for lane, engine in enumerate(engines)),
        *(
            _bar(ran, at(ran.begin_ns), at(ran.end_ns), engines.index(ran.engine), color)
            for ran in shown
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f"<p>{len(run.missed)} of {len(run.ran)} jobs ended late."
        f'</p>\n<div class="scroll"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">\n{chr(10).join(drawn)}\n</svg></div>\n'
        f"{_table(run, names, color)}\n</body></html>\n"
    )


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _bar(ran: Ran, left: float, right: float, lane: int, color: dict[str, str]) -> str:
    name, job = ran.job.task.name, ran.job
    times = [
        f"{ns / 1e6:.3f}" for ns in (job.release_ns, ran.begin_ns, ran.end_ns, job.deadline_ns)
    ]
    words = "released {}, began {}, ended {}, due {} ms".format(*times)
    late = ' class="late"' if ran.missed else ""
    return (
        f'<rect{late} x="{left:.2f}" y="{LANE * lane + 5}" width="{max(right - left, 0.5):.2f}" '
        f'height="{BAR}" fill="{color[name]}">'
        f"<title>{escape(name)} {job.number}: {words}</title></rect>"
    )


def _table(run: Run, names: list[str], color: dict[str, str]) -> str:
    """Misses and responses of each task."""
    rows = []
    for name in names:
        own = run.of(name)
        ms = [f"{run.response_ns(name, quantile=q) / 1e6:.3f}" for q in (0.5, 0.99, 1.0)]
        cells = [str(len(own)), str(sum(ran.missed for ran in own)), *ms]
        rows.append(
            f'<tr><td><span class="key" style="background:{color[name]}"></span>{escape(name)}</td>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    head = "".join(
        f"<th>{word}</th>" for word in ("task", "jobs", "late", "median ms", "p99 ms", "longest ms")
    )
    return f"<table><tr>{head}</tr>\n{chr(10).join(rows)}\n</table>"
