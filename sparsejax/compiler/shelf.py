"""What one compiled function has packed, found again by the regions of its other shapes."""

import dataclasses
import hashlib
import math
from collections.abc import Hashable, Iterable
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np

from sparsejax.compiler.engine.call import Programs
from sparsejax.compiler.graph.graph import Node, Region, Value
from sparsejax.compiler.layouts.select import Choice

ROWS_CLASSES = (16,)  # numbers of rows up to which the engine packs in another way


@dataclasses.dataclass(eq=False)
class Packed:
    """A region that was packed.

    Attributes:
        programs: that run it.
        choices: of its products, None for other nodes, in their order.
        keys: what each node is, for the times.
    """

    programs: Programs
    choices: list[Choice | None]
    keys: list[str]


class Shelf:
    """Regions that are packed, and arrays of which there is one for all shapes.

    It keeps nothing alive.

    Args:
        params: of the function, which outlive it.
    """

    def __init__(self, params: Any):
        leaves = jax.tree.leaves(params)
        self._params = {id(leaf) for leaf in leaves if isinstance(leaf, np.ndarray)}
        self._packed: WeakValueDictionary[Hashable, Packed] = WeakValueDictionary()
        self._arrays: WeakValueDictionary[Hashable, np.ndarray] = WeakValueDictionary()

    def share(self, nodes: Iterable[Node]) -> None:
        """Give nodes the arrays of equal ones that were met before."""
        for node in nodes:
            op: Any = node.op
            arrays = {name: self.array(array) for name, array in _arrays_of(op).items()}
            if any(array is not getattr(op, name) for name, array in arrays.items()):
                node.op = dataclasses.replace(op, **arrays)

    def find(self, region: Region) -> Packed | None:
        """What was packed for a region that computes the same, with arrays that are shared."""
        return self._packed.get(signature(region))

    def put(self, region: Region, packed: Packed) -> None:
        """Let others find it."""
        self._packed[signature(region)] = packed

    def array(self, array: np.ndarray) -> np.ndarray:
        """The array, or one that is equal and was met before."""
        return self._arrays.setdefault(self._content(array), array)

    def _content(self, array: np.ndarray) -> Hashable:
        """What equal arrays have in common: what they view of the params, or a digest."""
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        if id(root) in self._params:
            place = array.__array_interface__["data"][0]
            return array.dtype.str, array.shape, array.strides, place
        data = np.ascontiguousarray(array).data
        return array.dtype.str, array.shape, hashlib.blake2b(data, digest_size=16).digest()


def _arrays_of(op: Any) -> dict[str, np.ndarray]:
    if not dataclasses.is_dataclass(op):
        return {}
    values = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def signature(region: Region) -> Hashable:
    """What a region computes: equal for all batch sizes, and for rows that are packed alike."""
    numbers: dict[Value, int] = {}
    for value in (*region.inputs, *(v for node in region.nodes for v in node.outputs)):
        numbers.setdefault(value, len(numbers))
    return (
        *((_of_op(n.op), *(numbers[v] for v in (*n.inputs, *n.outputs))) for n in region.nodes),
        *(_size(region, value) for value in numbers),
        *(numbers[value] for value in region.outputs),
        region.rows,
        region.channels_last,
    )


def _of_op(op: Any) -> Hashable:
    fields = ((field.name, getattr(op, field.name)) for field in dataclasses.fields(op))
    own = ((name, id(x) if isinstance(x, np.ndarray) else repr(x)) for name, x in fields)
    return type(op), *own


def _size(region: Region, value: Value) -> Hashable:
    if not region.rows:
        return len(value.shape), region.size(value)
    return value.shape[-1], len(value.shape), rows_class(math.prod(value.shape[:-1]))


def rows_class(num_rows: int) -> int:
    """The most rows that are packed as so many are; 0 where there is no bound."""
    return min((most for most in ROWS_CLASSES if num_rows <= most), default=0)
