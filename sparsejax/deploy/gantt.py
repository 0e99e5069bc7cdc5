"""One HTML file with what ran when on each engine, for screens of any size and theme."""

from html import escape

from sparsejax.deploy.board import Ran, Run
from sparsejax.html_pages import COLORS, key, label, page, picture, table

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
            label(at(t), height - 8, f"{t / 1e6:g} ms", "end" if t == end else "middle")
            for t in marks
        ),
        *(label(0, LANE * lane + 24, engine, "start") for lane, engine in enumerate(engines)),
        *(
            _bar(ran, at(ran.begin_ns), at(ran.end_ns), engines.index(ran.engine), color)
            for ran in shown
        ),
    ]
    return page(
        title,
        f"<p>{len(run.missed)} of {len(run.ran)} jobs ended late.</p>",
        picture(title, WIDTH, height, drawn),
        _table(run, names, color),
    )


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
        rows.append(
            [key(color[name], name), str(len(own)), str(sum(ran.missed for ran in own)), *ms]
        )
    return table(["task", "jobs", "late", "median ms", "p99 ms", "longest ms"], rows)
