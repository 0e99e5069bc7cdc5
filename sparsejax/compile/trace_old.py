"""Any function of params and inputs as a Graph: calls inlined, constants folded."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from sparsejax import tree
from sparsejax.compile import fold
from sparsejax.compile.graph_old import Graph, Node, Value

# Elements that folding may make beyond those it reads: 16 MB of float32.
MAX_NEW_ELEMENTS = 1 << 22


def trace(apply_fn: Callable, params: Any, args: tuple) -> tuple[Graph, Any]:
    """The graph of apply_fn(params, *args) with `params` known, and the tree of its output.

    Args:
        apply_fn: any function that jax.jit could trace.
        params: its arrays become constants; other leaves are handed on as they are.
        args: arrays or their shapes (`jax.ShapeDtypeStruct`).
    """
    leaves, treedef = jax.tree.flatten(params)
    paths = [path for path, _ in tree.leaves_with_paths(params)]
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]

    def function(arrays: Sequence[jax.Array], args: tuple) -> Any:
        rest = iter(arrays)
        merged = [next(rest) if a else leaf for leaf, a in zip(leaves, is_array, strict=True)]
        return apply_fn(jax.tree.unflatten(treedef, merged), *args)

    closed, shapes = jax.make_jaxpr(function, return_shape=True)(arrays, args)
    names = [path for path, array in zip(paths, is_array, strict=True) if array]
    known = [constant(array, path) for array, path in zip(arrays, names, strict=True)]
    return lift(closed, known), jax.tree.structure(shapes)


def constant(array: Any, path: str = "") -> Value:
    """A value that is known; arrays of keys stay JAX's own and are not folded."""
    if isinstance(array, jax.core.Tracer):
        name = path or "a weight"
        raise TypeError(
            f"compile needs weights that are known, got a traced array for {name}; "
            "call it outside of jit, grad and vmap."
        )
    if not jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
        array = np.asarray(array)
    return Value(tuple(array.shape), array.dtype, array, path)


def lift(closed: core.ClosedJaxpr, known: Sequence[Value]) -> Graph:
    """The graph of a jaxpr whose first inputs are known."""
    jaxpr = closed.jaxpr
    inputs = [Value(v.aval.shape, v.aval.dtype) for v in jaxpr.invars[len(known) :]]
    graph = Graph(inputs, [])
    constants = [constant(c) for c in closed.consts]
    graph.outputs = _walk(graph, jaxpr, constants, [*known, *inputs])
    graph.prune()
    return graph


def _walk(graph: Graph, jaxpr: Any, constants: list[Value], args: list[Value]) -> list[Value]:
    """Add the equations of a jaxpr; the values of its outputs."""
    env: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))

    def read(v: Any) -> Value:
        return constant(fold.known(v)) if isinstance(v, core.Literal) else env[v]

    for equation in jaxpr.eqns:
        inputs = [read(v) for v in equation.invars]
        body = fold.body_of(equation)
        if _foldable(equation, inputs):
            outputs = _folded(equation, inputs)
        elif body is not None and equation.primitive.name in fold.INLINED:
            outputs = _walk(graph, body.jaxpr, [constant(c) for c in body.consts], inputs)
        else:
            outputs = _added(graph, equation, inputs)
        env.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _foldable(equation: Any, inputs: list[Value]) -> bool:
    if not inputs or equation.effects:
        return False
    if not all(isinstance(value.constant, np.ndarray) for value in inputs):
        return False
    if equation.primitive.name == "broadcast_in_dim":  # a view
        return True
    new = max(int(np.prod(v.aval.shape)) for v in equation.outvars) if equation.outvars else 0
    return new <= MAX_NEW_ELEMENTS + sum(value.constant.size for value in inputs)


def _folded(equation: Any, inputs: list[Value]) -> list[Value]:
    """Constants that keep the path of the largest parameter they were made from."""
    path = max(inputs, key=lambda value: (bool(value.path), value.constant.size)).path
    results = fold.fold(equation, [value.constant for value in inputs])
    return [Value(r.shape, r.dtype, r, path) for r in results]


def _added(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """The outputs of a new node; a reshape that leads back to a known value adds none."""
    outputs = [Value(v.aval.shape, v.aval.dtype) for v in equation.outvars]
    name = equation.primitive.name
    if _is_reshape(equation, inputs):
        source = next((n for n in graph.nodes if n.outputs[0] is inputs[0]), None)
        if source is not None and source.name == "reshape":
            inputs = source.inputs
        if inputs[0].shape == outputs[0].shape:
            return [inputs[0]]
        name = "reshape"
    graph.nodes.append(Node(name, inputs, outputs, equation))
    return outputs


def _is_reshape(equation: Any, inputs: list[Value]) -> bool:
    """Does the equation keep the elements and their order?"""
    if equation.primitive.name in ("squeeze", "expand_dims"):
        return True
    if equation.primitive.name == "reshape":
        return equation.params.get("dimensions") is None and len(inputs) == 1
    if equation.primitive.name != "broadcast_in_dim" or len(inputs) > 1:
        return False
    return int(np.prod(inputs[0].shape)) == int(np.prod(equation.outvars[0].aval.shape))
