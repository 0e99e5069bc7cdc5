"""What compile chose for each layer, and why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sparsejax import text
from sparsejax.compile.fusion_plan import FusionPlan
from sparsejax.compile.graph import Conv, Graph, Left, Linear, Node, Region
from sparsejax.compile.lower import is_depthwise
from sparsejax.compile.select import Choice


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        path: of its weights in the user's params.
        kind: "pointwise", "depthwise", "convolution" or "linear".
        shape: of the weights, HWIO or (inputs, outputs).
        sparsity: fraction of zeros among the weights after folding.
        kernel: "sparse", "dense", "depthwise" or "xla".
        pattern: how the weights are stored: "CSR", "2x1", "4x1", "8x1", "mask groups" or "dense".
        activation: the function that runs with the layer, "" for none.
        microseconds: measured on one core for one image (or all rows), nan where it was not.
        break_even: sparsity from which on the layer is faster than dense on this machine.
        reason: why this kernel.
        region: number of the custom call that it is part of, -1 in XLA.
        multiply_adds: of the dense layer on the compiled shape, batch included.
        sparse_multiply_adds: those with a nonzero weight.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float
    kernel: str
    pattern: str
    activation: str
    microseconds: float
    break_even: float
    reason: str
    region: int
    multiply_adds: int
    sparse_multiply_adds: int


@dataclass(frozen=True)
class CompileReport:
    """The whole function.

    Attributes:
        layers: in the order they run.
        num_regions: custom calls.
        xla: how often each primitive or kind of node stayed in XLA.
        reasons: why it did, by the same names.
        fusion: DNNFusion's plan, where it was asked for.
    """

    layers: tuple[LayerReport, ...]
    num_regions: int
    xla: dict[str, int]
    reasons: dict[str, str] = field(default_factory=dict)
    fusion: FusionPlan | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON; what was not measured is None."""
        layers = [asdict(layer) for layer in self.layers]
        for layer in layers:
            layer |= {k: None for k, v in layer.items() if isinstance(v, float) and math.isnan(v)}
        return {
            "layers": layers,
            "num_regions": self.num_regions,
            "xla": dict(self.xla),
            "reasons": dict(self.reasons),
        }

    def __str__(self) -> str:
        """A table."""
        columns = (
            "layer",
            "kind",
            "weights",
            "sparsity",
            "kernel",
            "µs",
            "pays from",
            "MMAdds",
            "why",
        )
        left = ", ".join(
            f"{count} {name}" + (f" ({self.reasons[name]})" if self.reasons.get(name) else "")
            for name, count in self.xla.items()
        )
        caption = (
            f"{self.num_regions} custom calls. MMAdds: million multiply-adds, nonzero/all. "
            f"µs: one core, one image.\nIn XLA: {left or 'nothing'}."
        )
        table = text.table("", columns, map(_cells, self.layers), caption=caption)
        return table if self.fusion is None else f"{table}\n\n{self.fusion}"


def _cells(row: LayerReport) -> Sequence[str]:
    return (
        row.path,
        row.kind + (f" + {row.activation}" if row.activation else ""),
        "x".join(map(str, row.shape)),
        f"{row.sparsity:.1%}",
        row.kernel if row.pattern in ("dense", "") else row.pattern,
        "" if math.isnan(row.microseconds) else f"{row.microseconds:.0f}",
        "" if math.isnan(row.break_even) else f"{row.break_even:.0%}",
        f"{row.sparse_multiply_adds / 1e6:.2f}/{row.multiply_adds / 1e6:.2f}",
        row.reason,
    )


def report(
    graph: Graph, schedule: Sequence[Region | Node], choices: Mapping[Node, Choice]
) -> CompileReport:
    """The report of a compiled graph."""
    regions = [part for part in schedule if isinstance(part, Region)]
    home = {node: number for number, region in enumerate(regions) for node in region.nodes}
    layers = tuple(
        _row(node, choices.get(node), home.get(node, -1))
        for node in graph.nodes
        if isinstance(node.op, Conv | Linear)
    )
    left: dict[str, Left] = dict(sorted(graph.left.items(), key=lambda item: -item[1].count))
    return CompileReport(
        layers,
        len(regions),
        {name: entry.count for name, entry in left.items()},
        {name: entry.reason for name, entry in left.items()},
    )


def _row(node: Node, choice: Choice | None, region: int) -> LayerReport:
    op = node.op
    assert isinstance(op, Conv | Linear)
    times = math.prod(node.outputs[0].shape) // max(op.weights.shape[-1], 1)
    sparsity = float(np.mean(op.weights == 0)) if op.weights.size else 0.0
    if choice is not None:
        kernel = "dense" if choice.name == "dense" else "sparse"
        pattern, reason, break_even = choice.name, choice.reason, choice.break_even
    else:
        kernel = "xla" if region < 0 else "depthwise"
        reason = "left in XLA" if region < 0 else "one filter a channel"
        pattern, break_even = "dense", math.nan
    return LayerReport(
        path=op.path,
        kind=_kind(op),
        shape=op.weights.shape,
        sparsity=sparsity,
        kernel=kernel,
        pattern=pattern,
        activation=str(op.activation) if op.activation else "",
        microseconds=choice.microseconds if choice else math.nan,
        break_even=break_even,
        reason=reason,
        region=region,
        multiply_adds=times * op.weights.size,
        sparse_multiply_adds=times * int(np.count_nonzero(op.weights)),
    )


def _kind(op: Conv | Linear) -> str:
    if isinstance(op, Linear):
        return "linear"
    if is_depthwise(op):
        return "depthwise"
    return "pointwise" if op.weights.shape[:2] == (1, 1) and op.groups == 1 else "convolution"
