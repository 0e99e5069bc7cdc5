"""Graphs of functions, and what they compute: helpers of the tests of compile's front end."""

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.graph.graph import Graph, Node, Region
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.split import split


def rewritten(fn, params, *example) -> Graph:
    """The graph of fn(params, *example) with layers in it."""
    graph, _ = trace(fn, params, example)
    return rewrite(graph)


def kinds(graph) -> list[str]:
    """Each node in a word or two: "Conv + relu", "add" for an equation."""
    return [kind(node) for node in graph.nodes]


def kind(node: Node) -> str:
    if isinstance(node.op, Primitive):
        return node.op.name
    name = getattr(node.op, "kind", type(node.op).__name__)
    residual = " + x" if isinstance(node.op, Conv | Linear) and len(node.inputs) > 1 else ""
    activation = getattr(node.op, "activation", None)
    return name + residual + (f" + {activation}" if activation else "")


def stepwise(graph):
    """The graph's function through its regions, with nothing but their inputs handed to them."""
    steps = split(graph)

    def run(*arrays):
        env = dict(zip(graph.inputs, arrays, strict=True))
        read = lambda v: env[v] if v.constant is None else v.constant
        for step in steps:
            nodes = step.nodes if isinstance(step, Region) else [step]
            call = interpreter(nodes, step.inputs, step.outputs)
            env.update(zip(step.outputs, call(*map(read, step.inputs)), strict=True))
        return [jnp.asarray(read(v)) for v in graph.outputs]

    return run


def regions(graph) -> list[Region]:
    return [step for step in split(graph) if isinstance(step, Region)]


def assert_same(fn, params, *inputs, tolerance=3e-5) -> Graph:
    """The rewritten graph, after a look whether it and its regions compute what fn does."""
    graph = rewritten(fn, params, *inputs)
    expected = jax.tree.leaves(jax.jit(fn)(params, *inputs))
    arrays = jax.tree.leaves(inputs)
    for run in (interpreter(graph.nodes, graph.inputs, graph.outputs), stepwise(graph)):
        for actual, exact in zip(jax.jit(run)(*arrays), expected, strict=True):
            assert_close(actual, exact, tolerance)
    return graph


def assert_close(actual, expected, tolerance=3e-5):
    """Within a fraction of the largest finite number; infinities and NaN in the same places."""
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape
    scale = np.abs(b[np.isfinite(b)]).max(initial=1e-30)
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)
