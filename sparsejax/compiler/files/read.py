"""Functions from files."""

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load as from_safetensors

from sparsejax.compiler.engine.call import Programs, region_call
from sparsejax.compiler.engine.program import Program
from sparsejax.compiler.files import ports
from sparsejax.compiler.files.contents import FileReport, report_of, stored_layers
from sparsejax.compiler.files.exported import ExportedFunction, is_exported
from sparsejax.compiler.files.raised import raised
from sparsejax.compiler.files.running import of_items, of_ports, running
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.ops import _ffi


class LoadedFunction:
    """A function of the inputs that a file holds; made by `sj.load`.

    It is an ordinary JAX function: `jax.jit`, `jax.vmap`, `jax.grad` (for the inputs) and
    `jax.shard_map` work, with any batch. On a GPU or TPU it runs in XLA. It pickles.

    Attributes:
        inputs, outputs: each leaf of the arguments and of what is returned: name, shape and dtype.
        input_tree: the structure of the arguments.
    """

    def __init__(self, file: bytes):
        programs, text = _ffi.read_model(file)
        # Of names that come twice the first counts, as it does in C++.
        graph = json.loads(text.decode(), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        self._file, self._graph = file, graph
        self._ports = ports.of_graph(graph)
        self.inputs, self.outputs, self.input_tree, _ = self._ports
        self._programs = [Program(words, floats, {}) for words, floats in programs]
        in_kernels = lambda region, layouts: region_call(region, Programs(region, layouts))
        self._run = jax.jit(self._function(in_kernels))

    def __call__(self, *args: Any) -> Any:
        """What the function that was saved returns."""
        arrays, batch = self._ports.arrays(args)
        return self._ports.returned(self._run(*arrays)) if batch else self._ports.nothing()

    def in_jax(self, *args: Any) -> Any:
        """The same in plain JAX, with dense weights."""
        arrays, _ = self._ports.arrays(args)
        meant = lambda region, _: interpreter(region.nodes, region.inputs, region.outputs)
        return self._ports.returned(jax.jit(self._function(meant))(*arrays))

    def report(self) -> FileReport:
        """What is in the file: layers, how they are stored, inputs and outputs."""
        layers = stored_layers(self._graph, from_safetensors(self._file))
        return report_of(self._graph, self._ports, len(self._file), layers)

    def _function(self, called: Callable) -> Callable:
        """The function of arrays, with `called(region, layouts)` for each program."""
        if "sequence" not in self._graph:
            shapes = [[port.sizes(1) for port in side] for side in (self.inputs, self.outputs)]
            return called(*raised(self._programs[0], self._graph["items"], *shapes))
        calls = []
        for program, saved in zip(self._programs, self._graph["programs"], strict=True):
            shapes = [[tuple(p["shape"][1:]) for p in saved[s]] for s in ("inputs", "outputs")]
            items = [[(1, *shape) for shape in side] for side in shapes]
            calls.append(of_items(called(*raised(program, saved["items"], *items)), shapes[0]))
        constants = from_safetensors(self._file).get("constants", np.zeros(0, np.float32))
        return of_ports(running(self._graph["sequence"], calls, constants), self._ports)

    def __reduce__(self) -> tuple:
        return LoadedFunction, (self._file,)


def load(path: str | PathLike, *, allow_xla: bool = False) -> LoadedFunction | ExportedFunction:
    """The function in a file that `sj.save` wrote.

    The file is checked before anything is made of it, and cannot ask for more than 1,024 bytes for
    each of its own; it holds no code. A file of a newer version that this one cannot read says so.

    Args:
        path: of the file.
        allow_xla: load a function that was saved with `allow_xla=True`, too: the program for XLA
            beside the file is code, so take it only from whom you trust. It runs under jax.jit, on
            CPU, GPU and TPU, with dense weights.

    Raises:
        ValueError: when the file is damaged, none of ours, needs a newer reader, or needs XLA.
        MemoryError: when there is none for its weights.
    """
    path = Path(path)
    file = path.read_bytes()
    try:
        return ExportedFunction(path) if allow_xla and is_exported(file) else LoadedFunction(file)
    except ValueError as error:
        raise ValueError(f"load needs a file that sj.save wrote, got {path}: {error}.") from error
    except MemoryError as error:
        raise MemoryError(f"load found no memory for the weights in {path}.") from error
