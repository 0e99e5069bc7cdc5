"""Any function of params and inputs as a Graph: calls opened, constants folded."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from sparsejax import tree
from sparsejax.compiler.graph import fold
from sparsejax.compiler.graph.edit import constant_of
from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.transpose import Transpose
from sparsejax.compiler.passes import loops
from sparsejax.doors import tracing
from sparsejax.jaxprs import calls
from sparsejax.jaxprs.read import split, walk

# Elements that folding may make beyond those it reads: 16 MB of float32.
MAX_NEW_ELEMENTS = 1 << 22
MAX_COUNTED = 1 << 12  # numbers of an iota that is one: rows, columns, steps
_ARRAYS = (jax.Array, np.ndarray)


class Traced(NamedTuple):
    """A function as JAX traced it.

    Attributes:
        closed: its jaxpr; the arrays of the params come first among the inputs.
        known: these arrays.
        output_tree: of what it returns.
    """

    closed: core.ClosedJaxpr
    known: list[Value]
    output_tree: Any


def trace(apply_fn: Callable, params: Any, args: tuple) -> tuple[Graph, Any]:
    """The graph of apply_fn(params, *args) with `params` known, and the tree of its output."""
    closed, known, output_tree = traced(apply_fn, params, args)
    return lift(closed, known), output_tree


def traced(apply_fn: Callable, params: Any, args: tuple) -> Traced:
    """apply_fn(params, *args) as a jaxpr, and its params as constants.

    Args:
        apply_fn: any function that jax.jit could trace.
        params: its arrays become constants; other leaves are handed on as they are.
        args: arrays or their shapes (`jax.ShapeDtypeStruct`).
    """
    is_array = lambda leaf: isinstance(leaf, _ARRAYS)
    arrays, merged = split(params, is_array)
    function = lambda arrays, args: apply_fn(merged(arrays), *args)
    known = constants(params)
    with tracing("compile"):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(arrays, args)
    return Traced(closed, known, jax.tree.structure(shapes))


def constants(params: Any) -> list[Value]:
    """The arrays of the params as values that are known, in the order of a trace's first inputs."""
    leaves = tree.leaves_with_paths(params)
    return [constant(leaf, path) for path, leaf in leaves if isinstance(leaf, _ARRAYS)]


def constant(array: Any, path: str = "") -> Value:
    """A value that is known; arrays of keys stay JAX's own and are not folded."""
    if isinstance(array, jax.core.Tracer):
        name = path or "a weight"
        raise TypeError(
            f"compile needs weights that are known, got a traced array for {name}; "
            "call it outside of jit, grad and vmap."
        )
    if not jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended):
        with np.errstate(over="ignore"):  # float64 becomes float32 as in jit
            array = np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
    return Value(tuple(array.shape), array.dtype, array, path)


def lift(closed: core.ClosedJaxpr, known: Sequence[Value] = ()) -> Graph:
    """The graph of a jaxpr whose first inputs are known."""
    jaxpr = closed.jaxpr
    inputs = [Value(v.aval.shape, v.aval.dtype) for v in jaxpr.invars[len(known) :]]
    graph = Graph(inputs, [])
    graph.outputs = _walk(graph, closed, [*known, *inputs])
    graph.prune()
    return graph


def _walk(graph: Graph, closed: core.ClosedJaxpr, args: Sequence[Value]) -> list[Value]:
    """Add the equations of a jaxpr; the values of its outputs."""

    def known(v: Any, value: Any) -> Value:
        is_jax = isinstance(value, jax.Array)
        return constant(value if is_jax else np.array(value, v.aval.dtype))  # the user's may change

    step = lambda equation, inputs: _lifted(graph, equation, inputs)
    return walk(closed.jaxpr, closed.consts, args, step, known)


def _lifted(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """The outputs of an equation: folded, opened or added."""
    if _foldable(equation, inputs):
        return _folded(equation, inputs)
    body = calls.body_of(equation)
    if body is not None and (equation.primitive.name in calls.INLINED or _holds_layers(equation)):
        return _walk(graph, body, inputs)
    if _holds_layers(equation):
        outputs = loops.lifted(graph, equation, inputs, _walk)
        if outputs is not None:
            return outputs
    return _added(graph, equation, inputs)


def _holds_layers(equation: Any) -> bool:
    """Does a function that an equation calls hold a convolution or a product?"""
    return any(
        inner.primitive.name in loops.LAYER_NAMES or _holds_layers(inner)
        for body in calls.functions_of(equation)
        for inner in body.eqns
    )


def _foldable(equation: Any, inputs: list[Value]) -> bool:
    if equation.primitive.name == "iota" and not inputs:
        return math.prod(equation.params["shape"]) <= MAX_COUNTED
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
    largest = max(inputs, key=lambda value: (bool(value.path), value.constant.size), default=None)
    path = largest.path if largest else ""
    results = fold.fold(equation, [value.constant for value in inputs])
    return [Value(r.shape, r.dtype, r, path) for r in results]


def _added(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """The outputs of a new node; what changes no element adds none."""
    outputs = [Value(v.aval.shape, v.aval.dtype) for v in equation.outvars]
    name = equation.primitive.name
    op: Any = Primitive(equation)
    if _is_reshape(equation, inputs):
        if inputs[0].shape == outputs[0].shape:
            return [inputs[0]]
        op = Reshape(tuple(outputs[0].shape))
    elif name == "transpose":
        op = Transpose(tuple(int(axis) for axis in equation.params["permutation"]))
    elif name == "copy":
        return [inputs[0]]
    elif name == "select_n" and (which := _one_case(inputs[0])) is not None:
        return [inputs[1 + which]]
    elif name == "dynamic_update_slice" and inputs[1].shape == inputs[0].shape:
        return [inputs[1]]  # wherever it is to begin, it is moved to fit
    graph.nodes.append(Node(op, inputs, outputs))
    return outputs


def _one_case(value: Value) -> int | None:
    """Which case a known array chooses everywhere, None if it is not one."""
    which = constant_of(value)
    if which is None or which.size == 0 or (which != which.flat[0]).any():
        return None
    return int(which.flat[0])


def _is_reshape(equation: Any, inputs: list[Value]) -> bool:
    """Does the equation keep the elements and their order?"""
    name, params = equation.primitive.name, equation.params
    if name in ("squeeze", "expand_dims"):
        return True
    if name == "reshape":
        return params.get("dimensions") is None and len(inputs) == 1
    if name == "convert_element_type":
        return inputs[0].dtype == equation.outvars[0].aval.dtype
    if name != "broadcast_in_dim" or len(inputs) > 1:
        return False
    return int(np.prod(inputs[0].shape)) == int(np.prod(equation.outvars[0].aval.shape))
