"""What the tables decide: the claims that are supported or contradicted, and no others."""

from collections.abc import Sequence
from pathlib import Path

from experiments.pages.readme import MARKED, anchor
from experiments.runs import verdicts
from experiments.runs.records import RESULTS, Store
from experiments.runs.table import Paper

FILE = RESULTS / "decided.md"
HEAD = "| claim | is | by |\n| --- | --- | --- |"


def write(papers: Sequence[Paper], store: Store, *, file: Path = FILE) -> None:
    """Write the decided claims as a table, and how many are open."""
    lines, num_open = [HEAD], 0
    for paper in papers:
        judged = verdicts.judge(paper.CLAIMS, store.results(paper))
        for claim, found in zip(paper.CLAIMS, judged, strict=True):
            if found.word == verdicts.UNRESOLVED:
                num_open += 1
                continue
            link = f"[{paper.TITLE}](experiments.md#{anchor(paper)})"
            reason = found.reason or "every record"
            lines.append(f"| {claim.text} ({link}) | {MARKED[found.word]} | {reason} |")
    open_ones = f"\n{num_open} more claims are [unresolved](experiments.md).\n"
    file.write_text("\n".join([*lines, open_ones]))
