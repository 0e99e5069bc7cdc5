"""Times of nodes that run as one function, which decide where DNNFusion's table says to measure."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose

RUNS, CALLS = 7, 5  # the fastest of so many runs of so many calls


class Block(NamedTuple):
    """Nodes as one function.

    Attributes:
        run: the function of the arrays for `inputs` that returns those for `outputs`.
        inputs: what is read, constants too, so that blocks with other weights are compiled once.
        outputs: what others read.
    """

    run: Callable[..., list[jax.Array]]
    inputs: list[Value]
    outputs: list[Value]


class Profile:
    """Compiled blocks of a graph, and how long each kind takes; equal kinds are measured once.

    It is the `profitable` of `fuse`: is a block with its last node faster than without it, and the
    node alone?
    """

    def __init__(self, graph: Graph):
        self._place = {node: i for i, node in enumerate(graph.nodes)}
        self._users = graph.users()
        self._results = set(graph.outputs)
        self._compiled: dict[str, Callable[..., list[jax.Array]]] = {}
        self._seconds: dict[str, float] = {}

    def __call__(self, nodes: Sequence[Node]) -> bool:
        """Does it pay to fuse the last of the nodes with the others?"""
        parts = self.seconds(nodes[:-1]) + self.seconds(nodes[-1:])
        return self.seconds(nodes) < parts

    def block(self, nodes: Sequence[Node]) -> Block:
        """The nodes as one jitted function."""
        nodes = sorted(nodes, key=self._place.__getitem__)
        members = set(nodes)
        written = [value for node in nodes for value in node.outputs]
        read = dict.fromkeys(v for node in nodes for v in node.inputs)
        inputs = [value for value in read if value not in set(written)]
        outputs = [value for value in written if self._is_read(value, members)]
        key = _key(nodes, inputs, outputs)
        if key not in self._compiled:
            self._compiled[key] = _jitted(nodes, inputs, outputs)
        return Block(self._compiled[key], inputs, outputs)

    def seconds(self, nodes: Sequence[Node]) -> float:
        """The fastest call of the nodes as one function, on arrays of ones."""
        block = self.block(nodes)
        key = _key(sorted(nodes, key=self._place.__getitem__), block.inputs, block.outputs)
        if key not in self._seconds:
            arrays = [_example(value) for value in block.inputs]
            self._seconds[key] = _fastest(lambda: block.run(*arrays))
        return self._seconds[key]

    def _is_read(self, value: Value, members: set[Node]) -> bool:
        """By anybody else?"""
        others = any(node not in members for node in self._users.get(value, ()))
        return others or value in self._results


def run_blocks(
    graph: Graph, blocks: Sequence[Sequence[Node]], *inputs: jax.Array
) -> Callable[[], list[jax.Array]]:
    """A call that runs a graph block after block, each a jitted function."""
    profile = Profile(graph)
    made = [profile.block(nodes) for nodes in blocks]
    known = {
        v: jax.device_put(v.constant) for b in made for v in b.inputs if v.constant is not None
    }

    def call() -> list[jax.Array]:
        env = {**known, **dict(zip(graph.inputs, inputs, strict=True))}
        for block in made:
            results = block.run(*(env[v] for v in block.inputs))
            env.update(zip(block.outputs, results, strict=True))
        return [env[v] for v in graph.outputs]

    return call


def _jitted(
    nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]
) -> Callable[..., list[jax.Array]]:
    """The nodes as a function of all that they read, constants too."""
    stands_for = {value: Value(value.shape, value.dtype) for value in inputs}
    free = [Node(n.op, [stands_for.get(v, v) for v in n.inputs], n.outputs) for n in nodes]
    return jax.jit(interpreter(free, [stands_for[v] for v in inputs], outputs))


def _key(nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
    """The same for nodes that compute the same function of their inputs."""
    written = [value for node in nodes for value in node.outputs]
    number = {value: i for i, value in enumerate((*inputs, *written))}
    types = [f"{np.dtype(v.dtype)}{v.shape}" for v in inputs]
    steps = [f"{_op_key(node)}{[number[v] for v in node.inputs]}" for node in nodes]
    return "\n".join([*types, *steps, str([number[v] for v in outputs])])


def _op_key(node: Node) -> str:
    if isinstance(node.op, Primitive):
        return f"{node.op.name}{dict(node.op.equation.params)}"
    return repr(node.op) if isinstance(node.op, Reshape | Transpose) else f"{id(node.op)}"


def _example(value: Value) -> Any:
    if value.constant is not None:
        return jax.device_put(value.constant)
    return jax.device_put(np.ones(value.shape, value.dtype))


def _fastest(call: Callable[[], list[jax.Array]]) -> float:
    jax.block_until_ready(call())
    return min(_turns(call))


def _turns(call: Callable[[], list[jax.Array]]) -> Iterator[float]:
    for _ in range(RUNS):
        start = time.perf_counter()
        for _ in range(CALLS):
            jax.block_until_ready(call())
        yield (time.perf_counter() - start) / CALLS
