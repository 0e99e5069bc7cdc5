"""What a file holds, as a table."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsejax import text
from sparsejax.compiler.files.ports import Ports


@dataclass(frozen=True)
class StoredLayer:
    """One layer in a file.

    Attributes:
        path: of its weights in the params of who saved it, "" where they had none.
        does: op, window and channels.
        sparsity: fraction of zeros.
        stored: how it is said where the others are, "all", "mask" or "gaps", with the rows that are
            taken together, and in which precision they stand.
        num_bytes: of weights and bias in the file.
        dense_bytes: of the same in float32 with all zeros.
    """

    path: str
    does: str
    sparsity: float
    stored: str
    num_bytes: int
    dense_bytes: int


@dataclass(frozen=True)
class FileReport:
    """A file.

    Attributes:
        layers: that have weights, in the order they run.
        inputs, outputs: name -> dtype and shape.
        num_bytes: of the whole file.
        writer: what wrote it.
        version: of the format.
        xla: what stays in XLA, and why, of a function that JAX alone runs.
    """

    layers: tuple[StoredLayer, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    num_bytes: int
    writer: str
    version: int
    xla: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A table of 80 columns."""
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> text.Table:
        paths, note = text.shortened([layer.path or "constant" for layer in self.layers])
        rows = [(path, *_cells(layer)) for path, layer in zip(paths, self.layers, strict=True)]
        dense = sum(layer.dense_bytes for layer in self.layers)
        footer = (
            "file",
            "",
            "",
            "",
            f"{self.num_bytes:,}",
            f"{self.num_bytes / max(dense, 1):.2f}",
        )
        caption = (
            f"{note}inputs: {_listed(self.inputs)}\noutputs: {_listed(self.outputs)}\n"
            f"written by {self.writer}, format {self.version}; of dense: in float32."
        )
        if self.xla:
            caption += f"\nOnly JAX runs it, with dense weights. In XLA: {', '.join(self.xla)}."
        columns = ("layer", "does", "zeros", "stored", "bytes", "of dense")
        return text.Table("", columns, rows, footer, caption)


def report_of(
    graph: Mapping[str, Any], ports: Ports, num_bytes: int, layers: Sequence[StoredLayer] = ()
) -> FileReport:
    """The report of a file of this graph."""
    return FileReport(
        layers=tuple(layers),
        inputs={port.name: str(port) for port in ports.inputs},
        outputs={port.name: str(port) for port in ports.outputs},
        num_bytes=num_bytes,
        writer=str(graph.get("writer", "")),
        version=int(graph.get("version", 0)),
        xla=tuple(map(str, graph.get("xla", ()))),
    )


def _listed(ports: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {what}" for name, what in ports.items())


def _cells(layer: StoredLayer) -> Sequence[str]:
    zeros, part = f"{layer.sparsity:.0%}", layer.num_bytes / max(layer.dense_bytes, 1)
    return layer.does, zeros, layer.stored, f"{layer.num_bytes:,}", f"{part:.2f}"


def stored_layers(
    graph: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> tuple[StoredLayer, ...]:
    """The layers of a file that was read: of its graph, with its tensors by name."""
    if "sequence" not in graph:
        return tuple(_layers(graph, tensors))
    calls = _calls(graph["sequence"])
    layers = []
    for number, program in enumerate(graph["programs"]):
        own = {
            name.partition("/")[2]: x
            for name, x in tensors.items()
            if name.startswith(f"{number}/")
        }
        for layer in _layers(program, own):
            turns = f" x {calls[number]}" if calls[number] > 1 else ""
            layers.append(replace(layer, does=layer.does + turns))
    return tuple(layers)


def _calls(sequence: Mapping[str, Any], turns: int = 1) -> Counter[int]:
    """How often each program runs."""
    calls: Counter[int] = Counter()
    for part in sequence["parts"]:
        if "call" in part:
            calls[part["call"]] += turns
        elif "loop" in part:
            calls += _calls(part["body"], turns * part["loop"])
    return calls


def _layers(program: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Iterator[StoredLayer]:
    for number, step in enumerate(program["steps"]):
        if "weights" in step:
            yield _layer(program["values"], step, _of_step(tensors, number))


def _of_step(tensors: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    found = {part: tensors.get(f"{number}.{part}") for part in ("values", "where", "bias")}
    return {part: array for part, array in found.items() if array is not None}


def _layer(
    values: Sequence, step: Mapping[str, Any], parts: Mapping[str, np.ndarray]
) -> StoredLayer:
    outputs, *pixels = values[step["output"]]
    inputs = values[step["inputs"][0]][0] if step.get("inputs") else outputs
    window = step.get("window", (1, 1))
    groups = step.get("groups", 1)
    of_input = inputs // groups if step["op"] == "product" else 1  # else its own channel alone
    cols = of_input * math.prod(pixels if step["op"] == "known" else window)
    form, block = step["weights"].get("form", "all"), step["weights"].get("block", 1)
    rows = f", {block} rows" if block > 1 else ""
    return StoredLayer(
        path=str(step.get("path", "")),
        does=f"{step['op']} {'x'.join(map(str, window))} {inputs}->{outputs}"
        + (f" in {groups} groups" if groups > 1 else ""),
        sparsity=1 - int(np.count_nonzero(parts["values"])) / (outputs * cols),
        stored=f"{form}{rows} {parts['values'].dtype}",
        num_bytes=sum(array.nbytes for array in parts.values()),
        dense_bytes=4 * outputs * (cols + 1),
    )
