"""Inputs and outputs of a function in a file, and what may be handed to it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.compiler.files import trees

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


class Ports(NamedTuple):
    """All of them.

    Attributes:
        inputs, outputs: each leaf of the arguments and of what is returned.
        input_tree, output_tree: the structures of these.
    """

    inputs: list[Port]
    outputs: list[Port]
    input_tree: Any
    output_tree: Any

    def arrays(self, args: tuple) -> tuple[list[jax.Array], int]:
        """The leaves of the arguments, and their batch; 1 where there is none.

        Raises:
            TypeError: when they are in other containers.
            ValueError: when one has another shape or dtype.
        """
        leaves, structure = jax.tree.flatten(args)
        if structure != self.input_tree:
            raise TypeError(
                f"the loaded function needs inputs as {self.input_tree}, got {structure}."
            )
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        return arrays, self._checked_batch(arrays)

    def nothing(self) -> Any:
        """What is returned for no items."""
        return self.returned([jnp.zeros(port.sizes(0), port.dtype) for port in self.outputs])

    def returned(self, outputs: Sequence[jax.Array]) -> Any:
        """The outputs in their structure."""
        return jax.tree.unflatten(self.output_tree, outputs)

    def batch_of(self, arrays: Sequence[jax.Array]) -> int:
        """How many items there are; 1 where no axis is one of items."""
        pairs = zip(self.inputs, arrays, strict=True)
        free = [array.shape[0] for port, array in pairs if BATCH in port.shape and array.ndim]
        return free[0] if free else 1

    def _checked_batch(self, arrays: Sequence[jax.Array]) -> int:
        batch = self.batch_of(arrays)
        for port, array in zip(self.inputs, arrays, strict=True):
            if array.shape != port.sizes(batch) or array.dtype != port.dtype:
                first = f" (the first has a batch of {batch})" * (BATCH in port.shape)
                raise ValueError(
                    f"the loaded function needs {port.name} as {port}{first}, "
                    f"got {array.dtype}[{', '.join(map(str, array.shape))}]."
                )
        return batch


def of_graph(graph: Mapping[str, Any]) -> Ports:
    """Those that a file's graph names.

    Raises:
        ValueError: when they are not as `save` writes them.
    """
    inputs, outputs = (
        [Port(str(p.get("name", "")), tuple(p["shape"]), p["dtype"]) for p in graph[side]]
        for side in ("inputs", "outputs")
    )
    return Ports(
        inputs,
        outputs,
        trees.from_json(graph.get("input_tree"), len(inputs)),
        trees.from_json(graph.get("output_tree"), len(outputs)),
    )
