"""Functions from files."""

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from safetensors.numpy import load as from_safetensors

from sparsejax.compiler.engine.call import Programs, region_call
from sparsejax.compiler.engine.program import Program
from sparsejax.compiler.files import trees
from sparsejax.compiler.files.contents import FileReport, stored_layers
from sparsejax.compiler.files.raised import raised
from sparsejax.ops import _ffi

BATCH = "batch"


class Port(NamedTuple):
    """An input or output of a file's function.

    Attributes:
        name: its path in the arguments or in what is returned.
        shape: sizes, the first of them "batch" where any number of items may stand.
        dtype: of the array.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape with so many items."""
        return tuple(batch if isinstance(size, str) else size for size in self.shape)

    def __str__(self) -> str:
        """Dtype and shape."""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class LoadedFunction:
    """A function of the inputs that a file holds; made by `sj.load`.

    It is an ordinary JAX function: `jax.jit`, `jax.vmap`, `jax.grad` (for the inputs) and
    `jax.shard_map` work, with any batch. On a GPU or TPU it runs in XLA. It pickles.

    Attributes:
        inputs, outputs: each leaf of the arguments and of what is returned: name, shape and dtype.
        input_tree: the structure of the arguments.
        region: what it computes.
    """

    def __init__(self, file: bytes):
        words, floats, text = _ffi.read_model(file)
        # Of names that come twice the first counts, as it does in C++.
        graph = json.loads(text.decode(), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        self._file, self._graph = file, graph
        self.inputs, self.outputs = (
            [Port(str(p.get("name", "")), tuple(p["shape"]), p["dtype"]) for p in graph[side]]
            for side in ("inputs", "outputs")
        )
        self.input_tree = trees.from_json(graph.get("input_tree"), len(self.inputs))
        self._output_tree = trees.from_json(graph.get("output_tree"), len(self.outputs))
        shapes = [[port.sizes(1) for port in side] for side in (self.inputs, self.outputs)]
        self.region, layouts = raised(Program(words, floats, {}), graph["items"], *shapes)
        self._run = jax.jit(region_call(self.region, Programs(self.region, layouts)))

    def __call__(self, *args: Any) -> Any:
        """What the function that was saved returns."""
        leaves, structure = jax.tree.flatten(args)
        if structure != self.input_tree:
            raise TypeError(
                f"the loaded function needs inputs as {self.input_tree}, got {structure}."
            )
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        batch = self._batch_of(arrays)
        outputs = self._run(*arrays) if batch else self._nothing()
        return jax.tree.unflatten(self._output_tree, outputs)

    def report(self) -> FileReport:
        """What is in the file: layers, how they are stored, inputs and outputs."""
        return FileReport(
            layers=stored_layers(self._graph, from_safetensors(self._file)),
            inputs={port.name: str(port) for port in self.inputs},
            outputs={port.name: str(port) for port in self.outputs},
            num_bytes=len(self._file),
            writer=str(self._graph.get("writer", "")),
            version=int(self._graph.get("version", 0)),
        )

    def _batch_of(self, arrays: list[jax.Array]) -> int:
        """The common batch of arrays that are what the file asks for; 1 where there is none."""
        batch = arrays[0].shape[0] if arrays[0].ndim > 1 else 1
        for port, array in zip(self.inputs, arrays, strict=True):
            if array.shape != port.sizes(batch) or array.dtype != port.dtype:
                free = f" (the first has a batch of {batch})" * (BATCH in port.shape)
                raise ValueError(
                    f"the loaded function needs {port.name} as {port}{free}, "
                    f"got {array.dtype}[{', '.join(map(str, array.shape))}]."
                )
        return batch

    def _nothing(self) -> list[jax.Array]:
        return [jnp.zeros(port.sizes(0), port.dtype) for port in self.outputs]

    def __reduce__(self) -> tuple:
        return LoadedFunction, (self._file,)


def load(path: str | PathLike) -> LoadedFunction:
    """The function in a file that `sj.save` wrote.

    The file is checked before anything is made of it, and cannot ask for more than 1,024 bytes for
    each of its own; it holds no code. A file of a newer version that this one cannot read says so.

    Args:
        path: of the file.

    Raises:
        ValueError: when the file is damaged, none of ours, or needs a newer reader.
    """
    file = Path(path).read_bytes()
    try:
        return LoadedFunction(file)
    except ValueError as error:
        raise ValueError(f"load needs a file that sj.save wrote, got {path}: {error}.") from error
