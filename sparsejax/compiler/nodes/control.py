"""Loops and branches: XLA runs them, around graphs of their own that are compiled once each."""

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.compiler.graph.graph import Graph, Node
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.graph.op import MappingType

Body = Callable[..., list[Any]]


@dataclass(frozen=True, eq=False)
class Control(abc.ABC):
    """A loop or a branch.

    Attributes:
        bodies: what it runs; what is known of their arguments is a constant in them.
        effects: must it run even if nobody reads its outputs?
    """

    bodies: tuple[Graph, ...]
    effects: bool

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The primitive's name in JAX."""

    @property
    @abc.abstractmethod
    def turns(self) -> int | None:
        """How often it runs its bodies; None where the values decide."""

    @abc.abstractmethod
    def run(self, bodies: Sequence[Body], *inputs: jax.Array) -> list[jax.Array]:
        """The outputs, with these functions for the bodies."""

    def __str__(self) -> str:
        """Name and turns."""
        return self.name + (f" x {self.turns}" if self.turns not in (1, None) else "")

    def evaluate(self, *inputs: jax.Array) -> list[jax.Array]:
        """The outputs in plain JAX."""
        in_jax = [interpreter(body.nodes, body.inputs, body.outputs) for body in self.bodies]
        return self.run(in_jax, *inputs)

    def mapping(self, node: Node) -> MappingType:
        return MappingType.OPAQUE


@dataclass(frozen=True, eq=False)
class Scan(Control):
    """lax.scan; inputs [shared by all turns, carried, scanned], outputs [carried, stacked].

    Attributes:
        num_shared, num_carried: how many of the inputs these are.
        length, reverse, unroll: of lax.scan.
    """

    num_shared: int
    num_carried: int
    length: int
    reverse: bool
    unroll: int

    @property
    def name(self) -> str:
        return "scan"

    @property
    def turns(self) -> int:
        return self.length

    def run(self, bodies: Sequence[Body], *inputs: jax.Array) -> list[jax.Array]:
        first, last = self.num_shared, self.num_shared + self.num_carried

        def turn(carried: list, scanned: list) -> tuple[list, list]:
            outputs = bodies[0](*inputs[:first], *carried, *scanned)
            return strong(outputs[: self.num_carried]), outputs[self.num_carried :]

        options: Any = {"length": self.length, "reverse": self.reverse, "unroll": self.unroll}
        start, scanned = strong(inputs[first:last]), list(inputs[last:])
        carried, stacked = lax.scan(turn, start, scanned, **options)
        return [*carried, *stacked]


@dataclass(frozen=True, eq=False)
class While(Control):
    """lax.while_loop; bodies (condition, turn), inputs [those of each that are shared, carried].

    Attributes:
        num_shared: by all calls of the condition, and by all turns.
    """

    num_shared: tuple[int, int]

    @property
    def name(self) -> str:
        return "while"

    @property
    def turns(self) -> None:
        return None

    def run(self, bodies: Sequence[Body], *inputs: jax.Array) -> list[jax.Array]:
        first, last = self.num_shared[0], sum(self.num_shared)
        condition, turn = bodies
        return lax.while_loop(
            lambda carried: condition(*inputs[:first], *carried)[0],
            lambda carried: strong(turn(*inputs[first:last], *carried)),
            strong(inputs[last:]),
        )


@dataclass(frozen=True, eq=False)
class Cond(Control):
    """lax.switch; inputs [index, what all branches read]."""

    @property
    def name(self) -> str:
        return "cond"

    @property
    def turns(self) -> int:
        return 1

    def run(self, bodies: Sequence[Body], *inputs: jax.Array) -> list[jax.Array]:
        branches = [lambda *read, body=body: strong(body(*read)) for body in bodies]
        return lax.switch(inputs[0], branches, *inputs[1:])


def strong(arrays: Sequence[Any]) -> list[jax.Array]:
    """The arrays with types of their own, so that all turns and branches have the same."""
    return list(map(_with_type, map(jnp.asarray, arrays)))


def _with_type(x: jax.Array) -> jax.Array:
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    return x if is_key else lax.convert_element_type(x, x.dtype)


def graphs(graph: Graph) -> Iterator[Graph]:
    """A graph, and those of the loops and branches in it."""
    yield graph
    for node in graph.nodes:
        for body in node.op.bodies if isinstance(node.op, Control) else ():
            yield from graphs(body)
