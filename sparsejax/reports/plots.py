"""Pictures of how sparse each layer is; they need matplotlib."""

from typing import Any

from sparsejax import text
from sparsejax.compiler import CompileReport
from sparsejax.doors import Need, checked
from sparsejax.plans.plan import Plan
from sparsejax.reports.report import Report

REPORT = Need(
    "a report or a plan",
    lambda thing: isinstance(thing, Report | CompileReport | Plan),
    "pass sj.report(params, plan), fast.report() or the plan",
)


@checked(report=REPORT)
def plot(report: Report | CompileReport | Plan, *, axes: Any = None) -> Any:
    """The matplotlib Axes with a bar for the sparsity of each layer, dense ones in grey.

    Vectors, such as biases, have none.

    Args:
      report: of `sj.report` or of a compiled function, or a plan with its targets.
      axes: to draw on; None for a new figure.

    Raises:
      ImportError: matplotlib is missing.

    Example:
      >>> axes = sj.reports.plot(sj.report(params, plan))
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plot needs matplotlib, which is not installed; pip install 'sparsejax[plot]'."
        ) from error
    rows = _rows(report)
    names, note = text.shortened([path for path, _, _ in rows])
    if axes is None:
        _, axes = plt.subplots(figsize=(7, 1 + 0.22 * len(rows)), layout="constrained")
    colors = ["tab:blue" if sparse else "lightgrey" for _, _, sparse in rows]
    places = range(len(rows))
    axes.barh(places, [sparsity for _, sparsity, _ in rows], color=colors)
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 1), xlabel=f"sparsity (zeros / weights). {note}".rstrip(" .\n"))
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    return axes


def _rows(report: Report | CompileReport | Plan) -> list[tuple[str, float, bool]]:
    """Path, sparsity, and whether it is meant to be sparse."""
    if isinstance(report, Report):
        leaves = [leaf for leaf in report.leaves if leaf.pattern != "dense" or len(leaf.shape) > 1]
        return [(leaf.path, leaf.sparsity, leaf.pattern != "dense") for leaf in leaves]
    if isinstance(report, Plan):
        return [(leaf.path, leaf.sparsity, True) for leaf in report.leaves]
    return [(layer.path, layer.sparsity, layer.kernel == "sparse") for layer in report.layers]
