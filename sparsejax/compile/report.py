"""What compile chose for each layer, and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sparsejax.compile.graph_old import Graph, Node, positions
from sparsejax.compile.select import Choice


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        path: of its weights in the user's params.
        kind: "pointwise", "depthwise", "convolution" or "linear".
        shape: of the weights, HWIO or (inputs, outputs).
        sparsity: fraction of zeros among the weights after folding.
        kernel: "spmm", "depthwise_conv2d" or "xla".
        pattern: how the weights are packed, "dense" where they are not.
        activation: the function that runs with the layer, "" for none.
        reason: why this kernel.
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
    reason: str
    multiply_adds: int
    sparse_multiply_adds: int


@dataclass(frozen=True)
class CompileReport:
    """All layers in the order they run, and how often each primitive stayed in XLA."""

    layers: tuple[LayerReport, ...]
    xla: dict[str, int]

    def to_dict(self) -> dict:
        """Plain lists, dicts, numbers and strings, for JSON."""
        return {"layers": [asdict(layer) for layer in self.layers], "xla": dict(self.xla)}

    def __str__(self) -> str:
        """A table."""
        table = Table(box=box.SIMPLE)
        for name in ("layer", "kind", "weights", "sparsity", "kernel", "MMAdds", "why"):
            table.add_column(name, justify="right" if name in ("sparsity", "MMAdds") else "left")
        for row in self.layers:
            kernel = row.kernel if row.pattern == "dense" else f"{row.kernel} {row.pattern}"
            table.add_row(
                row.path,
                row.kind + (f" + {row.activation}" if row.activation else ""),
                "x".join(map(str, row.shape)),
                f"{row.sparsity:.1%}",
                kernel,
                f"{row.sparse_multiply_adds / 1e6:.2f}/{row.multiply_adds / 1e6:.2f}",
                row.reason,
            )
        console = Console(width=160, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(table)
        left = ", ".join(f"{count} {name}" for name, count in self.xla.items()) or "nothing"
        return f"{capture.get()}MMAdds: million multiply-adds, nonzero/all.\nIn XLA: {left}."


def report(graph: Graph, choices: Mapping[Node, Choice]) -> CompileReport:
    """The report of a compiled graph."""
    layers = tuple(_row(node, choices[node]) for node in graph.nodes if node.layer)
    others = Counter(node.name for node in graph.nodes if not node.layer)
    return CompileReport(layers, dict(others.most_common()))


def _row(node: Node, choice: Choice) -> LayerReport:
    layer = node.layer
    assert layer is not None
    times = positions(node)
    return LayerReport(
        path=layer.path,
        kind=layer.kind,
        shape=layer.weights.shape,
        sparsity=float(np.mean(layer.weights == 0)) if layer.weights.size else 0.0,
        kernel=choice.kernel,
        pattern=_name(choice),
        activation=layer.activation.__name__ if layer.activation else "",
        reason=choice.reason,
        multiply_adds=times * layer.weights.size,
        sparse_multiply_adds=times * int(np.count_nonzero(layer.weights)),
    )


def _name(choice: Choice) -> str:
    if choice.pattern is None:
        return "dense"
    rows = getattr(choice.pattern, "rows", None)
    return f"{rows}x1" if rows else "CSR"
