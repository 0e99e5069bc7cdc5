"""Loops and branches that hold layers: opened, or nodes around graphs of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.nodes.control import Cond, Control, Scan, While
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.passes import turns
from sparsejax.compiler.passes.turns import Walk

# A scan whose turns have layers with weights of their own is written out up to this length.
MAX_UNROLLED = 64
LAYER_NAMES = ("conv_general_dilated", "dot_general")


def lifted(graph: Graph, equation: Any, inputs: list[Value], walk: Walk) -> list[Value] | None:
    """The outputs of a loop or branch that holds layers, None for other equations."""
    kinds = {"scan": _scan, "while": _while, "cond": _cond}
    lift = kinds.get(equation.primitive.name)
    return lift(graph, equation, inputs, walk) if lift else None


def _scan(graph: Graph, equation: Any, inputs: list[Value], walk: Walk) -> list[Value] | None:
    params = equation.params
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    shared, carried, scanned = inputs[:first], inputs[first:last], inputs[last:]
    length, closed = params["length"], params["jaxpr"]
    if length == 0:
        return None
    one_turn = [Value(v.shape[1:], v.dtype) for v in scanned]
    made = lambda rest: _loop_body(closed, shared, carried, rest, walk)
    body, fixed = made(one_turn)
    # Layers over a scanned stack of weights have constants only when written out; a loop whose
    # turns share their weights stays a loop, or each turn would pack them again.
    if length == 1 or (length <= MAX_UNROLLED and _own_weights(body, made, scanned)):
        return _unrolled(graph, equation, inputs, walk)
    if not _num_layers(body):
        return None
    shared, moving = _computed(shared), [v for v, f in zip(carried, fixed, strict=True) if not f]
    loop = turns.Turns(body, shared, moving, scanned, length)
    loop = turns.before(graph, loop, _is_layer, walk)
    loop, finish = turns.after(loop, _is_layer)
    options = (length, bool(params["reverse"]), params["unroll"])
    op = Scan((body,), bool(equation.effects), len(loop.shared), len(moving), *options)
    outputs = _added(graph, op, [*loop.shared, *moving, *loop.scanned], loop.outputs())
    stacks = finish(graph, outputs[len(moving) :], walk)
    return [*_merged(fixed, carried, outputs[: len(moving)]), *stacks]


def _own_weights(body: Graph, made: Callable, scanned: Sequence[Value]) -> bool:
    """Do layers have weights that are scanned: constants that each turn has others of?"""
    known = [isinstance(value.constant, np.ndarray) for value in scanned]
    if not any(known):
        return False
    rows = [
        _row(v, 0) if k else Value(v.shape[1:], v.dtype)
        for v, k in zip(scanned, known, strict=True)
    ]
    return _num_layers(made(rows)[0]) > _num_layers(body)


def _row(value: Value, index: int) -> Value:
    """One turn's part of a constant that a scan goes over."""
    array, path = value.constant[index], f"{value.path}[{index}]" if value.path else ""
    return Value(array.shape, array.dtype, array, path)


def _unrolled(graph: Graph, equation: Any, inputs: list[Value], walk: Walk) -> list[Value]:
    """The outputs of a scan whose turns are written out."""
    params = equation.params
    first_carry, first_xs = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, carry, xs = inputs[:first_carry], inputs[first_carry:first_xs], inputs[first_xs:]
    steps = range(params["length"])
    rows: dict[int, list[Value]] = {}
    for step in reversed(steps) if params["reverse"] else steps:
        slices = [_at(graph, value, step, walk) for value in xs]
        results = walk(graph, params["jaxpr"], [*constants, *carry, *slices])
        carry, rows[step] = results[: len(carry)], results[len(carry) :]
    stacks = zip(*(rows[step] for step in steps), strict=True)
    return [*carry, *(_emit(graph, lambda *ys: jnp.stack(ys), walk, *ys) for ys in stacks)]


def _at(graph: Graph, value: Value, index: int, walk: Walk) -> Value:
    """One turn's part of what a scan goes over."""
    if isinstance(value.constant, np.ndarray):
        return _row(value, index)
    return _emit(graph, lambda x: lax.index_in_dim(x, index, keepdims=False), walk, value)


def _emit(graph: Graph, function: Callable, walk: Walk, *inputs: Value) -> Value:
    """The output of a JAX function of values."""
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in inputs]
    return walk(graph, jax.make_jaxpr(function)(*shapes), list(inputs))[0]


def _while(graph: Graph, equation: Any, inputs: list[Value], walk: Walk) -> list[Value] | None:
    params = equation.params
    first = params["cond_nconsts"]
    last = first + params["body_nconsts"]
    of_condition, shared, carried = inputs[:first], inputs[first:last], inputs[last:]
    body, fixed = _loop_body(params["body_jaxpr"], shared, carried, [], walk)
    known = [v if f else _unknown(v) for v, f in zip(carried, fixed, strict=True)]
    condition = _graph(params["cond_jaxpr"], [*map(_known, of_condition), *known], walk)
    if not _num_layers(body) + _num_layers(condition):
        return None
    of_condition, shared = _computed(of_condition), _computed(shared)
    moving = [value for value, f in zip(carried, fixed, strict=True) if not f]
    op = While((condition, body), bool(equation.effects), (len(of_condition), len(shared)))
    outputs = _added(graph, op, [*of_condition, *shared, *moving], body.outputs)
    return _merged(fixed, carried, outputs)


def _cond(graph: Graph, equation: Any, inputs: list[Value], walk: Walk) -> list[Value] | None:
    params, (index, *read) = equation.params, inputs
    branches = params["branches"]
    if params.get("branches_platforms") is not None:
        return None
    if isinstance(index.constant, np.ndarray):
        return walk(graph, branches[int(index.constant)], read)
    bodies = tuple(_graph(branch, list(map(_known, read)), walk) for branch in branches)
    if not any(map(_num_layers, bodies)):
        return None
    op = Cond(bodies, bool(equation.effects))
    return _added(graph, op, [index, *_computed(read)], bodies[0].outputs)


def _loop_body(
    closed: core.ClosedJaxpr,
    shared: Sequence[Value],
    carried: Sequence[Value],
    scanned: Sequence[Value],
    walk: Walk,
) -> tuple[Graph, list[bool]]:
    """The graph of one turn, whose outputs are what moves and what is stacked.

    A constant that is carried and that no turn changes is one in the graph, too; so NNX carries
    weights. The flags say which of `carried` these are.
    """
    fixed = [False] * len(carried)
    while True:
        own = [v if f else _unknown(v) for v, f in zip(carried, fixed, strict=True)]
        body = _graph(closed, [*map(_known, shared), *own, *scanned], walk)
        known = [isinstance(value.constant, np.ndarray) for value in carried]
        results = body.outputs[: len(carried)]
        still = [a is b and k for a, b, k in zip(own, results, known, strict=True)]
        if still == fixed:
            break
        fixed = still
    body.outputs = [v for i, v in enumerate(body.outputs) if i >= len(fixed) or not fixed[i]]
    return body, fixed


def _graph(closed: core.ClosedJaxpr, args: list[Value], walk: Walk) -> Graph:
    """The graph of a jaxpr; of its arguments those that are not known are inputs."""
    graph = Graph([value for value in args if value.constant is None], [])
    graph.outputs = walk(graph, closed, args)
    graph.prune()
    return graph


def _unknown(value: Value) -> Value:
    return Value(value.shape, value.dtype)


def _known(value: Value) -> Value:
    """The value within a body: what is known, or an input."""
    return value if isinstance(value.constant, np.ndarray) else _unknown(value)


def _computed(values: Sequence[Value]) -> list[Value]:
    """The values that bodies have as inputs."""
    return [value for value in values if not isinstance(value.constant, np.ndarray)]


def _merged(fixed: list[bool], carried: Sequence[Value], moved: Sequence[Value]) -> list[Value]:
    """All that a loop carried: what is fixed as it came, the rest as the loop left it."""
    rest = iter(moved)
    return [value if f else next(rest) for value, f in zip(carried, fixed, strict=True)]


def _added(graph: Graph, op: Control, inputs: list[Value], like: Sequence[Value]) -> list[Value]:
    outputs = list(map(_unknown, like))
    graph.nodes.append(Node(op, inputs, outputs))
    return outputs


def _num_layers(graph: Graph) -> int:
    """Layers, and loops that hold some."""
    return sum(_is_layer(node) or isinstance(node.op, Control) for node in graph.nodes)


def _is_layer(node: Node) -> bool:
    """Does the node multiply what is computed by what is known?"""
    if not isinstance(node.op, Primitive) or node.op.name not in LAYER_NAMES:
        return False
    return sum(isinstance(value.constant, np.ndarray) for value in node.inputs) == 1
