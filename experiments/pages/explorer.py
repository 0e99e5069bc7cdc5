"""The points of the picture on docs/explorer.md: every classifier that was trained, by its cost.

docs/explorer.js draws them; a point says its recipe when it is pointed at.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.data.stored import read_json
from experiments.pages.plots import series
from experiments.pages.readme import allocation, place
from experiments.runs.records import RESULTS, ROOT, Store
from experiments.runs.table import Paper, Row
from experiments.runs.verdicts import standing
from experiments.settings.classify import Classify

FILE = RESULTS / "explorer.html"
TIMES = ROOT / "benchmarks" / "results" / "allocations.json"
MEASURE = "write it again with python -m benchmarks.allocations"


def write(papers: Sequence[Paper], store: Store, *, file: Path = FILE, times: Path = TIMES) -> None:
    """Write the points as JSON inside HTML, which a page includes.

    Args:
        papers: whose classifiers are shown, each once.
        store: of the records.
        file: to write.
        times: milliseconds of compiled networks, by network, allocation and percent; if there are.
    """
    known = read_json(times, {}, MEASURE) if times.exists() else {}
    points, shown = [], set()
    for paper in papers:
        results = store.results(paper)
        for row in paper.ROWS:
            if not isinstance(row.setting, Classify) or row.setting in shown:
                continue
            shown.add(row.setting)
            points += _points(row, results, known)
    data = json.dumps(points, separators=(",", ":")).replace("</", "<\\/")
    file.write_text(f'<script type="application/json" id="explorer-points">{data}</script>\n')


def _points(row: Row, results: Any, times: dict[str, float]) -> Iterator[dict[str, Any]]:
    """The row's point, if it has records."""
    setting: Any = row.setting
    values, num_collapsed = standing(row.name, None, results)
    records = [record["result"] for record in results.records[row.name]]
    if not values:
        return
    means = {
        name: statistics.fmean(found)
        for name in ("sparsity", "multiply_adds_left")
        if (found := [r[name] for r in records if r.get(name) is not None])
    }
    spread = allocation(row)
    yield {
        "where": place(row),
        "series": series(row),
        "row": row.name,
        "allocation": spread,
        "recipe": f"{setting.method.__name__}, {setting.pattern}, {setting.steps} steps of "
        f"{setting.batch_size}, {'AdamW' if setting.momentum is None else 'SGD'} at "
        f"{setting.learning_rate:g}",
        "seeds": len(values),
        "collapsed": num_collapsed,
        "accuracy": 100 * statistics.fmean(values),
        "spread": 100 * statistics.stdev(values) if len(values) > 1 else None,
        "density": 100 * (1 - means.get("sparsity", 0.0)),
        "adds": 100 * means["multiply_adds_left"] if "multiply_adds_left" in means else None,
        "ms": times.get(f"{setting.net.__name__} {spread} {100 * setting.sparsity:g}"),
    }
