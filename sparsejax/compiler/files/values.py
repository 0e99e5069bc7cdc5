"""A sequence while it is written: the file's programs and constants, each loop's parts."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.files import items
from sparsejax.compiler.files.items import Apart
from sparsejax.compiler.graph.graph import Node, Region, Value
from sparsejax.compiler.nodes.transpose import Transpose


class Called(NamedTuple):
    """A program of a sequence: a region, and how many rows of it belong together."""

    region: Region
    rows: int


@dataclass
class Sequences:
    """What the sequences of a file, one for each loop, have in common.

    Attributes:
        batch: of the arrays, 1 where nothing is an item.
        programs: that are called.
        constants: one behind the other.
    """

    batch: int
    programs: list[Called] = field(default_factory=list)
    constants: list[np.ndarray] = field(default_factory=list)

    def keep(self, array: np.ndarray) -> int:
        """Where a constant begins among all."""
        begin = sum(own.size for own in self.constants)
        self.constants.append(array.astype(np.float32).ravel())
        return begin

    def program(self, region: Region, rows: int = 1) -> int:
        """The number of a program, which equal calls share."""
        called = Called(region, rows)
        if called not in self.programs:
            self.programs.append(called)
        return self.programs.index(called)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Forgets what was added where items turn out to be apart."""
        sizes = len(self.programs), len(self.constants)
        try:
            yield
        except Apart:
            del self.programs[sizes[0] :], self.constants[sizes[1] :]
            raise


@dataclass
class Values:
    """A sequence while it is written; `outers` says where the items of each array lie."""

    whole: Sequences
    values: list[int] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    ids: dict[Value, int] = field(default_factory=dict)
    outers: dict[Value, int] = field(default_factory=dict)

    def finish(self, outputs: list[int]) -> dict[str, Any]:
        return {"values": self.values, "parts": self.parts, "outputs": outputs}

    def new(self, floats: int) -> int:
        self.values.append(floats)
        return len(self.values) - 1

    def enter(self, value: Value, outer: int) -> int:
        """A value that is made here."""
        self.outers[value] = outer
        self.ids[value] = self.new(items.item_floats(value, self.whole.batch))
        return self.ids[value]

    def id_of(self, value: Value, outer: int) -> int:
        """The number of a value whose items lie so."""
        if value.constant is not None:
            return self.constant(items.alike(value, outer, self.whole.batch))
        if self.outers[value] != outer:
            raise Apart(f"the axis of the items is another one in an array of shape {value.shape}")
        return self.ids[value]

    def constant(self, item: np.ndarray) -> int:
        self.parts.append({"constant": self.whole.keep(item), "outputs": [self.new(item.size)]})
        return len(self.values) - 1

    def viewed(self, view: items.View, number: int) -> tuple[int, int]:
        """The number of a view of a value, and its outer."""
        if items.is_all(view, self.values[number]):
            return number, view.outer
        digits = [count for digit in view.digits for count in digit]
        floats = math.prod(digit.size for digit in view.digits)
        made = {"view": digits, "inputs": [number], "outputs": [self.new(floats)]}
        self.parts.append(made | ({"begin": view.begin} if view.begin else {}))
        return len(self.values) - 1, view.outer

    def transposed(
        self, value: Value, number: int, outer: int, order: Sequence[int]
    ) -> tuple[Value, int, int]:
        """A value with its axes in another order, its number and its outer."""
        after = Value(tuple(value.shape[axis] for axis in order), value.dtype)
        node = Node(Transpose(tuple(order)), [value], [after])
        return after, *self.viewed(items.view_of(node, outer, self.whole.batch), number)

    def run(self, program: int, inputs: list[int], outputs: list[int]) -> None:
        self.parts.append({"call": program, "inputs": inputs, "outputs": outputs})
