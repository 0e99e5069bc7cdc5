"""One network with one set of weights, written for every engine."""

import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.peers.environments import CannotBeHadError, Engine, Format
from benchmarks.peers.nets import NETS, Net, input_of, variables_of
from benchmarks.peers.onnx_export import export
from sparsejax.compiler.graph.graph import Graph
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace


class Case(NamedTuple):
    """A network, its weights, how many inputs at once and on how many threads."""

    net: str
    pattern: str
    sparsity: float
    batch: int = 1
    threads: int = 1

    def __str__(self) -> str:
        """Net, zeros, batch and threads."""
        zeros = "dense" if not self.sparsity else f"{self.sparsity:.0%} {self.pattern}"
        return f"{self.net}, {zeros}, batch {self.batch}, threads {self.threads}"


class Files(NamedTuple):
    """A case on disk.

    Attributes:
        case: what it is.
        models: per format the network with batch norm folded, or the reason why there is none.
        variables: pickled NumPy arrays.
        channels_last, channels_first: the input.
        expected: the output of JAX as written.
        effective_flops, useful_flops: of the dense layers, and of their nonzeros alone.
    """

    case: Case
    models: dict[Format, Path | str]
    variables: Path
    channels_last: Path
    channels_first: Path
    expected: np.ndarray
    effective_flops: int
    useful_flops: int

    def order(self, engine: Engine | str) -> dict[str, Any]:
        """What a worker is told first.

        Raises:
            CannotBeHadError: when there is no model for the engine.
        """
        last = isinstance(engine, str) or engine.format is Format.STABLEHLO
        model = self.variables if isinstance(engine, str) else self.models[engine.format]
        if isinstance(model, str):
            raise CannotBeHadError(model)
        return {
            "net": self.case.net,
            "model": str(model),
            "input": str(self.channels_last if last else self.channels_first),
            "output": str(self.variables.with_name("output.npy")),
            "threads": self.case.threads,
        }


def write(case: Case, folder: Path) -> Files:
    """Make the weights and everything that workers read."""
    net: Net = NETS[case.net]()
    variables = variables_of(net, case.pattern, case.sparsity)
    x = input_of(net, case.batch)
    graph, _ = trace(net.apply, variables, (x,))
    rewrite(graph)
    names = [f"{name}.npy" for name in ("channels_last", "channels_first")]
    array = np.asarray(x)
    for name, value in zip(
        names, (array, array.transpose(0, 3, 1, 2) if array.ndim == 4 else array), strict=True
    ):
        np.save(folder / name, value)
    variables_file = folder / "variables.pickle"
    variables_file.write_bytes(pickle.dumps(jax.tree.map(np.asarray, variables)))
    return Files(
        case,
        {Format.ONNX: _onnx(graph, folder), Format.STABLEHLO: _stablehlo(graph, x, folder)},
        variables_file,
        folder / names[0],
        folder / names[1],
        np.asarray(jax.jit(net.apply)(variables, x)),
        *flops(graph),
    )


def flops(graph: Graph) -> tuple[int, int]:
    """Of all multiply-adds in layers, and of those with weights that are not zero."""
    effective = useful = 0
    for node in graph.nodes:
        if isinstance(node.op, Layer):
            weights = node.op.weights
            positions = math.prod(node.outputs[0].shape) // weights.shape[-1]
            effective += 2 * positions * weights.size
            useful += 2 * positions * int(np.count_nonzero(weights))
    return effective, useful


def _onnx(graph: Graph, folder: Path) -> Path | str:
    try:
        export(graph, folder / "net.onnx")
    except ValueError as error:
        return str(error)
    return folder / "net.onnx"


def _stablehlo(graph: Graph, x: jax.Array, folder: Path) -> Path:
    run = interpreter(graph.nodes, graph.inputs, graph.outputs)
    exported = jax.export.export(jax.jit(lambda x: run(x)[0]), platforms=["cpu"])(x)
    (folder / "net.mlir").write_bytes(exported.mlir_module_serialized)
    return folder / "net.mlir"
