"""What compile chose for each layer, and why."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sparsejax import text
from sparsejax.compiler.graph.graph import Graph, Left, Node, Region
from sparsejax.compiler.layouts.select import Choice
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.control import Control, graphs
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.regions.fusion import Fusion, kind_of
from sparsejax.compiler.reports.layer_report import LayerReport as LayerReport
from sparsejax.compiler.reports.left_layers import left_layers
from sparsejax.compiler.reports.verdict import Verdict

MAX_NAMED = 4  # kinds of equation in the caption


@dataclass(frozen=True)
class CompileReport:
    """The whole function.

    Attributes:
        layers: in the order they run, those that stay in XLA among them.
        num_regions: custom calls.
        handed_back: regions that run in XLA, which is faster.
        microseconds: of one call of the whole function on all threads, nan where it was not timed.
        outside_microseconds: of them, what is spent in XLA, outside of custom calls.
        jit_microseconds: of what jax.jit makes of the function as it was.
        xla: how often each primitive or kind of node stayed in XLA.
        reasons: why it did, by the same names.
        others: microseconds of one call that the steps that are no layers take, by kind; empty
            where nothing was measured.
        unmeasured: layouts worth a measurement that the next compile goes on with.
        untried: kinds of region that there was no time to try in XLA one by one.
        laws: of arithmetic that saved operations, and how often.
        fusion: DNNFusion's plan, where it was asked for.
    """

    layers: tuple[LayerReport, ...]
    num_regions: int
    xla: dict[str, int]
    reasons: dict[str, str] = field(default_factory=dict)
    others: dict[str, float] = field(default_factory=dict)
    unmeasured: int = 0
    handed_back: int = 0
    microseconds: float = math.nan
    jit_microseconds: float = math.nan
    outside_microseconds: float = math.nan
    untried: int = 0
    laws: dict[str, int] = field(default_factory=dict)
    fusion: Fusion | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON; what was not measured is None."""
        layers = [asdict(layer) for layer in self.layers]
        for layer in layers:
            layer |= {key: _known(value) for key, value in layer.items()}
        return {
            "layers": layers,
            "num_regions": self.num_regions,
            "xla": dict(self.xla),
            "reasons": dict(self.reasons),
            "others": dict(self.others),
            "unmeasured": self.unmeasured,
            "handed_back": self.handed_back,
            "microseconds": _known(self.microseconds),
            "jit_microseconds": _known(self.jit_microseconds),
            "outside_microseconds": _known(self.outside_microseconds),
            "untried": self.untried,
            "laws": dict(self.laws),
        }

    def __str__(self) -> str:
        """A table of 80 columns; layers that stayed in XLA for one reason are one row."""
        table = str(self._table())
        return table if self.fusion is None else f"{table}\n\n{self.fusion}"

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> text.Table:
        ours = [layer for layer in self.layers if layer.kernel != "xla"]
        paths, note = text.shortened([layer.path for layer in ours])
        rows = [(path, *_cells(layer)) for path, layer in zip(paths, ours, strict=True)]
        columns = ("layer", "does", "zeros", "stored", "µs", "pays from", "MMAdds")
        rows += [
            (name, "", "", "", f"{micros:.0f}", "", "") for name, micros in self.others.items()
        ]
        return text.Table("", columns, [*rows, *self._left_rows()], caption=note + self._caption())

    def _left_rows(self) -> Iterator[tuple[str, ...]]:
        """One row for the layers that stayed in XLA for one reason."""
        groups: dict[tuple[str, str], list[LayerReport]] = {}
        for layer in self.layers:
            if layer.kernel == "xla":
                groups.setdefault((layer.kind, layer.reason), []).append(layer)
        for (kind, reason), layers in groups.items():
            first = layers[0].path or "constant"
            name = first if len(layers) == 1 else f"{first} and {len(layers) - 1} more"
            zeros = sum(layer.sparsity for layer in layers) / len(layers)
            adds = _adds(*(sum(pair) for pair in zip(*map(_pair, layers), strict=True)))
            yield (name, f"{kind}: {reason}", f"{zeros:.0%}", "XLA", "", "", adds)

    def _caption(self) -> str:
        named = [
            f"{count} {name}" + (f" ({self.reasons[name]})" if self.reasons.get(name) else "")
            for name, count in list(self.xla.items())[:MAX_NAMED]
        ]
        more = sum(self.xla.values()) - sum(list(self.xla.values())[:MAX_NAMED])
        named += [f"{more} others"] if more else []
        return (
            f"{self.num_regions} custom calls. MMAdds: million multiply-adds, nonzero/all; "
            "µs: on one core; both of one call on the compiled shape, batch included; ~: estimated."
            "\n"
            f"In XLA: {', '.join(named) or 'nothing'}.{''.join(self._notes())}"
        )

    def _notes(self) -> Iterator[str]:
        """Lines about the whole function, and about what was not measured."""
        if self.laws:
            laws = ", ".join(f"{law} ({count}x)" for law, count in self.laws.items())
            yield f"\nRewritten: {laws}."
        if self.handed_back:
            yield f"\nGiven back to XLA, which is faster: {self.handed_back} custom calls."
        if not math.isnan(self.jit_microseconds):
            whole, jit = self.microseconds, self.jit_microseconds
            yield f"\nA call takes {whole:,.0f} µs on all threads, {jit:,.0f} by jax.jit alone."
        if self.outside_microseconds > 0 and self.num_regions:
            share = self.outside_microseconds / self.microseconds
            yield f" About {share:.0%} of it is spent in XLA, outside of custom calls."
        if self.unmeasured or self.untried:
            counts = {"layouts": self.unmeasured, "kinds of region": self.untried}
            left = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
            yield f"\nThe time to measure was over with {left} left: the next compile goes on."


def _known(value: Any) -> Any:
    """The value, None for nan."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _pair(layer: LayerReport) -> tuple[int, int]:
    return layer.sparse_multiply_adds, layer.multiply_adds


def _adds(nonzero: int, whole: int) -> str:
    return f"{nonzero / 1e6:.3g}/{whole / 1e6:.3g}"


def _cells(row: LayerReport) -> Sequence[str]:
    return (
        _does(row),
        f"{row.sparsity:.0%}",
        row.kernel if row.pattern in ("dense", "") else row.pattern,
        "" if math.isnan(row.microseconds) else f"{row.microseconds:.0f}",
        "" if math.isnan(row.break_even) else f"{'~' * row.estimated}{row.break_even:.0%}",
        _adds(*_pair(row)),
    )


def _does(row: LayerReport) -> str:
    """The kind of layer and its size: 3x3 64->128 + relu."""
    inputs, outputs = row.shape[-2:]
    window = "x".join(map(str, row.shape[:-2]))
    size = f"{window} dw {outputs}" if row.kind == "depthwise" else f"{inputs}->{outputs}"
    kind = "linear" if row.kind == "linear" else window
    text = size if row.kind == "depthwise" else f"{kind} {size}"
    text += f" + {row.activation}" if row.activation else ""
    return text + (" a turn" if row.turns is None else f" x {row.turns}" if row.turns > 1 else "")


def report(
    graph: Graph,
    schedule: Sequence[Region | Node],
    choices: Mapping[Node, Choice],
    chooser: Chooser,
    verdict: Verdict,
) -> CompileReport:
    """The report of a compiled graph.

    Args:
        graph, schedule: what was compiled.
        choices: of its products.
        chooser: that made them, with the times of all nodes.
        verdict: which regions went back to XLA.
    """
    inner = [part for body in graphs(graph) if body is not graph for part in body.schedule]
    everything = [part for part in (*schedule, *inner) if isinstance(part, Region)]
    regions = [region for region in everything if region not in verdict.given]
    given = {node: why for region, why in verdict.given.items() for node in region.nodes}
    home = {node: number for number, region in enumerate(regions) for node in region.nodes}
    layers, turns_of = [], {}
    for owner, node, turns in _in_order(graph, 1):
        turns_of[node] = turns or 1
        if isinstance(node.op, Layer):
            number = home.get(node, -1)
            images = number >= 0 and not regions[number].rows
            micros = chooser.micros.get(node, math.nan)
            row = _row(node, choices.get(node), number, images, micros)
            why = given.get(node) or owner.reasons.get(node, "")  # of nodes that stay apart
            rows = [_handed_back(row, why) if why else row]
        else:
            rows = left_layers(owner, node)
        layers += [_repeated(row, turns) for row in rows]
    left: dict[str, Left] = dict(sorted(graph.left.items(), key=lambda item: -item[1].count))
    return CompileReport(
        tuple(layers),
        len(regions),
        {name: entry.count for name, entry in left.items()},
        {name: entry.reason for name, entry in left.items()},
        _others(regions, {n: m * turns_of[n] for n, m in chooser.micros.items()}),
        chooser.num_left,
        len(verdict.given),
        verdict.micros,
        verdict.jit_micros,
        verdict.outside,
        verdict.untried,
    )


def _handed_back(row: LayerReport, reason: str) -> LayerReport:
    """The row of a layer that the kernels could run, where XLA does."""
    return replace(
        row,
        kernel="xla",
        pattern="dense",
        microseconds=math.nan,
        break_even=math.nan,
        reason=reason,
        handed_back=True,
    )


def _in_order(graph: Graph, turns: int | None) -> Iterator[tuple[Graph, Node, int | None]]:
    """The nodes, those of loops and branches in their place, with their graph and turns."""
    for node in graph.nodes:
        if not isinstance(node.op, Control):
            yield graph, node, turns
            continue
        own = node.op.turns
        for body in node.op.bodies:
            yield from _in_order(body, None if own is None or turns is None else own * turns)


def _repeated(row: LayerReport, turns: int | None) -> LayerReport:
    """The row of a layer that runs so often in one call; None where values decide."""
    times = 1 if turns is None else turns
    return replace(
        row,
        turns=turns,
        microseconds=row.microseconds * times,
        multiply_adds=row.multiply_adds * times,
        sparse_multiply_adds=row.sparse_multiply_adds * times,
    )


def _others(regions: Sequence[Region], micros: Mapping[Node, float]) -> dict[str, float]:
    """The times of the steps that are no layers, those of one kind together."""
    sums: dict[str, float] = {}
    for region in regions:
        for node in region.nodes:
            if node in micros and not isinstance(node.op, Layer):
                batch = 1 if region.rows else node.outputs[0].shape[0]
                name = kind_of(node)
                sums[name] = sums.get(name, 0.0) + micros[node] * batch
    return sums


def _row(
    node: Node, choice: Choice | None, region: int, images: bool, micros: float
) -> LayerReport:
    op = node.op
    assert isinstance(op, Layer)
    times = math.prod(node.outputs[0].shape) // max(op.weights.shape[-1], 1)
    batch = node.outputs[0].shape[0] if images else 1
    sparsity = float(np.mean(op.weights == 0)) if op.weights.size else 0.0
    if choice is not None:
        kernel = "dense" if choice.is_dense else "sparse"
        pattern, reason, break_even = choice.name, choice.reason, choice.break_even
    else:
        kernel = "xla" if region < 0 else "depthwise"
        reason = "left in XLA" if region < 0 else "one filter a channel"
        pattern, break_even = "dense", math.nan
    return LayerReport(
        path=op.path,
        kind=op.layer_kind,
        shape=op.weights.shape,
        sparsity=sparsity,
        kernel=kernel,
        pattern=pattern,
        activation=str(op.activation) if op.activation else "",
        microseconds=micros * batch,
        break_even=break_even,
        reason=reason,
        region=region,
        multiply_adds=times * op.weights.size,
        sparse_multiply_adds=times * int(np.count_nonzero(op.weights)),
        batch=batch,
        estimated=choice is not None and choice.estimated,
    )
