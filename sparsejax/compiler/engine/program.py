"""What the C++ engine runs: a program of steps over images of channels x height x width."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sparsejax.compiler.graph.activation import IDENTITY, Activation
from sparsejax.compiler.graph.graph import Node, Region, Size, Value
from sparsejax.ops._ffi import CODES
from sparsejax.patterns.layout import ROWS, Layout, Storage

MAGIC = 0x73706A7803  # in xla_ops/engine/program.h
INPUT, OUTPUT = "input", "output"  # other steps have their names in the files of their nodes
NONE = -1

NO_PRODUCT = Layout(ROWS, 0)


class Program(NamedTuple):
    """A program as `Program` in the extension takes it."""

    words: np.ndarray
    floats: np.ndarray
    steps: dict[Node, int]  # of each convolution and linear layer
    owners: Mapping[int, Node] = MappingProxyType({})  # of each step but inputs and outputs


@dataclass
class Step:
    """One step; `xla_ops/engine/program.h` has what the fields mean."""

    op: str
    output: int
    inputs: tuple[int, ...] = ()
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)  # top, left
    activation: Activation = IDENTITY
    residual: int = NONE
    gate: int = NONE
    groups: int = 1
    layout: Layout = NO_PRODUCT
    channels_last: bool = False
    pooling: str = "max"
    binary: str = "add"
    weights: int = NONE
    bias: int = NONE
    argument: int = NONE
    rank: int = 0
    channels: Iterable[int] = ()

    def words(self) -> list[int]:
        """As read_step in xla_ops/engine/program.cc reads them."""
        bounds = np.array([self.activation.low, self.activation.high], np.float32).view(np.uint32)
        channels = list(map(int, self.channels))
        return [
            *(CODES["op"][self.op], self.output, *self.window, *self.strides),
            *(*self.dilation, *self.pads),
            *(CODES["function"][self.activation.name], *map(int, bounds), self.residual, self.gate),
            self.groups,
            *(CODES["storage"][self.layout.storage.name.lower()], *self.layout[1:]),
            int(self.channels_last),
            *(CODES["pooling"][self.pooling], CODES["binary"][self.binary]),
            *(self.weights, self.bias, self.argument, self.rank),
            *(len(self.inputs), *self.inputs, len(channels), *channels),
        ]


def read_steps(words: np.ndarray) -> tuple[list[Size], list[Step]]:
    """The sizes of a program's values, and its steps."""
    left = iter(words.tolist())
    take = lambda count: tuple(next(left) for _ in range(count))
    _, num_values = take(2)
    sizes: list[Any] = [take(3) for _ in range(num_values)]
    steps = []
    for _ in range(next(left)):
        op, output, *sides = take(10)
        function, *bits, residual, gate, groups = take(6)
        low, high = np.array(bits, np.uint32).view(np.float32).tolist()
        storage, *layout = take(5)
        last, pooling, binary, weights, bias, argument, rank = take(7)
        inputs, channels = take(next(left)), take(next(left))
        fields: list[Any] = [NAMES["op"][op], output, inputs]
        fields += [tuple(sides[i : i + 2]) for i in range(0, 8, 2)]
        fields += [Activation(NAMES["function"][function], low, high), residual, gate, groups]
        fields += [Layout(Storage[NAMES["storage"][storage].upper()], *layout), bool(last)]
        fields += [NAMES["pooling"][pooling], NAMES["binary"][binary]]
        steps.append(Step(*fields, weights, bias, argument, rank, channels))  # type: ignore[call-arg]
    return sizes, steps


NAMES = {enum: {code: name for name, code in codes.items()} for enum, codes in CODES.items()}


@dataclass
class Builder:
    """A program while it is written, one node after the other.

    Attributes:
        region: that it is to compute.
        layouts: of the products' weights; dense without one.
        sizes, steps, floats, num_floats: of the program so far.
        ids: the engine's number of each value.
        gates: x and gate of a product that layers take in, in place of a value.
        layers: the step of each convolution and linear layer.
        owners: the node of each step.
        kept: where arrays begin that may be kept again.
    """

    region: Region
    layouts: Mapping[Node, Layout]
    sizes: list[Size] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    floats: list[np.ndarray] = field(default_factory=list)
    num_floats: int = 0
    ids: dict[Value, int] = field(default_factory=dict)
    gates: dict[Value, tuple[int, int]] = field(default_factory=dict)
    layers: dict[Node, int] = field(default_factory=dict)
    owners: dict[int, Node] = field(default_factory=dict)
    kept: dict[Any, int] = field(default_factory=dict)

    def new(self, value: Value) -> int:
        """A number for a value."""
        self.sizes.append(self.region.size(value))
        self.ids[value] = len(self.sizes) - 1
        return self.ids[value]

    def keep(self, array: np.ndarray) -> int:
        """Where the array begins among the program's floats."""
        begin = self.num_floats
        self.floats.append(np.ascontiguousarray(array, np.float32).ravel())
        self.num_floats += array.size
        return begin

    def keep_once(self, array: np.ndarray) -> int:
        """The same, where equal arrays may have been kept before."""
        array = np.ascontiguousarray(array, np.float32)
        key = (array.shape, array.tobytes())
        if key not in self.kept:
            self.kept[key] = self.keep(array)
        return self.kept[key]

    def add(self, node: Node, op: str, **fields: object) -> None:
        """A step that makes the node's output, of all its inputs unless `inputs` are given."""
        inputs = fields.pop("inputs", None)
        inputs = tuple(self.ids[v] for v in node.inputs) if inputs is None else inputs
        output = self.new(node.outputs[0])
        self.owners[len(self.steps)] = node
        self.steps.append(Step(op, output, inputs, **fields))  # type: ignore[arg-type]

    def finish(self) -> Program:
        """The program as it is."""
        words = [MAGIC, len(self.sizes), *np.ravel(self.sizes).tolist(), len(self.steps)]
        for step in self.steps:
            words += step.words()
        floats = np.concatenate([*self.floats, np.zeros(0, np.float32)])
        return Program(np.array(words, np.int64), floats, self.layers, self.owners)
