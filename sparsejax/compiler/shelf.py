"""What one compiled function has packed, found again by the regions of its other shapes."""

import dataclasses
import hashlib
import math
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np

from sparsejax.compiler.engine.call import Programs
from sparsejax.compiler.graph.graph import Node, Region, Value
from sparsejax.compiler.layouts.select import Choice

FEW, MANY = 16, 0  # the most rows that are stored as is fastest for few of them; no bound


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
        self._choosing: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)

    def share(self, nodes: Iterable[Node]) -> None:
        """Give nodes the arrays of equal ones that were met before."""
        for node in nodes:
            op: Any = node.op
            arrays = {name: self.array(array) for name, array in _arrays_of(op).items()}
            if any(array is not getattr(op, name) for name, array in arrays.items()):
                node.op = dataclasses.replace(op, **arrays)

    def choosing(self, region: Region) -> threading.Lock:
        """Held while the region is found or chosen and packed: once for all who ask for it."""
        return self._choosing[signature(region, MANY)]

    def find(self, region: Region) -> Packed | None:
        """What was packed for a region that computes the same, with arrays that are shared."""
        return self._packed.get(signature(region))

    def find_other(self, region: Region) -> Packed | None:
        """What was packed for few rows where the region has many, and the other way round."""
        if not region.rows:
            return None
        few = rows_class(math.prod(region.inputs[0].shape[:-1])) == FEW
        return self._packed.get(signature(region, MANY if few else FEW))

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


def signature(region: Region, rows: int | None = None) -> Hashable:
    """What a region computes: equal for all batch sizes, and for few or for many rows.

    Args:
        region: which one.
        rows: which of the two it stands for; by default what it has.
    """
    numbers: dict[Value, int] = {}
    for value in (*region.inputs, *(v for node in region.nodes for v in node.outputs)):
        numbers.setdefault(value, len(numbers))
    return (
        *((_of_op(n.op), *(numbers[v] for v in (*n.inputs, *n.outputs))) for n in region.nodes),
        *(_size(region, value, rows) for value in numbers),
        *(numbers[value] for value in region.outputs),
        region.rows,
        region.channels_last,
    )


def _of_op(op: Any) -> Hashable:
    fields = ((field.name, getattr(op, field.name)) for field in dataclasses.fields(op))
    own = ((name, id(x) if isinstance(x, np.ndarray) else repr(x)) for name, x in fields)
    return type(op), *own


def _size(region: Region, value: Value, rows: int | None) -> Hashable:
    if not region.rows:
        return len(value.shape), region.size(value)
    own = rows_class(math.prod(value.shape[:-1])) if rows is None else rows
    return value.shape[-1], len(value.shape), own


def rows_class(num_rows: int) -> int:
    """FEW or MANY."""
    return FEW if num_rows <= FEW else MANY
