"""Functions from files."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.compiler.engine.call import region_call
from sparsejax.compiler.engine.program import Program
from sparsejax.compiler.files import trees
from sparsejax.compiler.files.raised import raised
from sparsejax.ops import _ffi

BATCH = "batch"


class LoadedFunction:
    """A function of the inputs that a file holds; made by `sj.load`.

    It is an ordinary JAX function: `jax.jit`, `jax.vmap`, `jax.grad` (for the inputs) and
    `jax.shard_map` work, with any batch. On a GPU or TPU it runs in XLA. It pickles.
    """

    def __init__(self, file: bytes):
        words, floats, text = _ffi.read_model(file)
        # Of names that come twice the first counts, as it does in C++.
        graph = json.loads(text.decode(), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        self._file = file
        self._inputs, self._outputs = graph["inputs"], graph["outputs"]
        self._input_tree = trees.from_json(graph.get("input_tree"), len(self._inputs))
        self._output_tree = trees.from_json(graph.get("output_tree"), len(self._outputs))
        shapes = [[_with_batch(port, 1) for port in side] for side in (self._inputs, self._outputs)]
        self._run = jax.jit(
            region_call(*raised(Program(words, floats, {}), graph["items"], *shapes))
        )

    def __call__(self, *args: Any) -> Any:
        """What the function that was saved returns."""
        leaves, structure = jax.tree.flatten(args)
        if structure != self._input_tree:
            raise TypeError(
                f"the loaded function needs inputs as {self._input_tree}, got {structure}."
            )
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        batch = self._batch_of(arrays)
        outputs = self._run(*arrays) if batch else self._nothing()
        return jax.tree.unflatten(self._output_tree, outputs)

    def _batch_of(self, arrays: list[jax.Array]) -> int:
        """The common batch of arrays that are what the file asks for."""
        batch = arrays[0].shape[0] if arrays[0].ndim else 0
        for port, array in zip(self._inputs, arrays, strict=True):
            wanted = _with_batch(port, batch)
            if array.shape != wanted or array.dtype != port["dtype"]:
                free = f", with any batch ({batch} in the first)" * (BATCH in port["shape"])
                raise ValueError(
                    f"the loaded function needs {port['name']} as {port['dtype']}"
                    f"{list(wanted)}{free}, got {array.dtype}{list(array.shape)}."
                )
        return batch

    def _nothing(self) -> list[jax.Array]:
        return [jnp.zeros(_with_batch(port, 0), port["dtype"]) for port in self._outputs]

    def __reduce__(self) -> tuple:
        return LoadedFunction, (self._file,)


def _with_batch(port: dict[str, Any], batch: int) -> tuple[int, ...]:
    return tuple(batch if size == BATCH else size for size in port["shape"])


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
