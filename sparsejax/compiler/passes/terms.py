"""Arithmetic written as terms: found in a graph, bounded, and built again."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.graph.edit import Edit, constant_of, number_of
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.passes import ranges
from sparsejax.compiler.passes.ranges import Range
from sparsejax.compiler.passes.trace import lift

Term = Any  # a name of a value (one number if it is lower case), a number, or (primitive, *terms)

COMMUTE = frozenset(("add", "mul"))
REDUCE: dict[str, Callable] = {"reduce_sum": jnp.sum, "reduce_prod": jnp.prod}
IN_JAX: dict[str, Callable] = {
    "abs": jnp.abs,
    "add": jnp.add,
    "exp": jnp.exp,
    "mul": jnp.multiply,
    "reciprocal": jnp.reciprocal,
    "shift_left": jnp.left_shift,
    "sqrt": jnp.sqrt,
    "square": jnp.square,
    "sub": jnp.subtract,
}
MOST_COMPARED = 1 << 12  # numbers of two constants that may be the same


class Found(NamedTuple):
    """A term in a graph.

    Attributes:
        values: what its names stand for, as small as before they were broadcast.
        nodes: that compute it, the last first.
        axes: of its sums and products over axes, which are the same.
    """

    values: dict[str, Value]
    nodes: tuple[Node, ...] = ()
    axes: tuple[int, ...] = ()


def find(edit: Edit, value: Value, term: Term, found: Found, full: bool = False) -> Iterator[Found]:
    """All ways to read a value as a term, given what its names stand for already.

    Args:
        edit: the graph.
        value: of it.
        term: to be found.
        found: so far.
        full: must values have all their elements, because they are summed?
    """
    if isinstance(term, str):
        yield from _named(edit, value, term, found, full)
    elif isinstance(term, int):
        if _is_number(value, term):
            yield found
    else:
        yield from _computed(edit, value, term, found, full)


def _named(edit: Edit, value: Value, name: str, found: Found, full: bool) -> Iterator[Found]:
    small, crossed = _small(edit, value)
    if full and small.size != value.size and not (name.islower() and small.size == 1):
        small, crossed = value, ()
    if name.islower() and small.size != 1:
        return
    known = found.values.get(name)
    if known is None or _same(known, small):
        values = {**found.values, name: known or small}
        yield found._replace(values=values, nodes=(*found.nodes, *crossed))


def _computed(edit: Edit, value: Value, term: Term, found: Found, full: bool) -> Iterator[Found]:
    small, crossed = (value, ()) if full else _small(edit, value)
    writer = edit.writer.get(small)
    for name, operands in _readings(writer):
        if name != term[0] or writer is None:
            continue
        axes = found.axes
        if name in REDUCE:
            assert isinstance(writer.op, Primitive)
            axes = tuple(writer.op.equation.params["axes"])
        if found.axes not in ((), axes):
            continue
        here = found._replace(nodes=(*found.nodes, *crossed, writer), axes=axes)
        for terms in (term[1:], term[:0:-1]) if name in COMMUTE else (term[1:],):
            yield from _each(edit, operands, terms, here, full or name in REDUCE)


def _each(edit: Edit, values: Any, terms: Any, found: Found, full: bool) -> Iterator[Found]:
    """All ways to read values as terms, one after the other."""
    if not terms:
        yield found
        return
    for first in find(edit, values[0], terms[0], found, full):
        yield from _each(edit, values[1:], terms[1:], first, full)


def _readings(node: Node | None) -> Iterator[tuple[str, list[Value]]]:
    """The operations that a node may be taken for."""
    if node is None or not isinstance(node.op, Primitive) or len(node.outputs) != 1:
        return
    name, inputs = node.op.name, node.inputs
    if name == "integer_pow":
        power = {2: "square", -1: "reciprocal"}.get(node.op.equation.params["y"])
        if power is not None:
            yield power, inputs
        return
    yield name, inputs
    if name == "mul" and inputs[0] is inputs[1]:
        yield "square", inputs[:1]
    if name == "div" and _is_number(inputs[0], 1):
        yield "reciprocal", inputs[1:]


def _small(edit: Edit, value: Value) -> tuple[Value, tuple[Node, ...]]:
    """A value before it was broadcast along axes of length 1 or in front, and the nodes between."""
    array = constant_of(value)
    if array is not None:
        return _folded(value, array), ()
    writer = edit.writer.get(value)
    if writer is None or not isinstance(writer.op, Primitive):
        return value, ()
    if writer.op.name != "broadcast_in_dim" or len(writer.inputs) != 1:
        return value, ()
    source = writer.inputs[0]
    dims = writer.op.equation.params["broadcast_dimensions"]
    rank = len(value.shape)
    trailing = tuple(dims) == tuple(range(rank - len(dims), rank))
    return (source, (writer,)) if trailing else (value, ())


def _is_number(value: Value, number: int) -> bool:
    """Is it known, and nothing but this number?"""
    one = number_of(value)
    return one is not None and one.item() == number


def _folded(value: Value, array: np.ndarray) -> Value:
    """A constant without the axes that it is broadcast along."""
    if array.size <= 1 or all(array.strides):
        return value
    first = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)
    small = array[first]
    return Value(small.shape, small.dtype, small, value.path)


def _same(a: Value, b: Value) -> bool:
    """The same value, or equal constants."""
    one, other = constant_of(a), constant_of(b)
    if one is None or other is None or a.shape != b.shape or a.size > MOST_COMPARED:
        return a is b
    return np.array_equal(one, other)


def evaluate(term: Term, values: Mapping[str, Any], axes: tuple[int, ...]) -> Any:
    """A term of arrays."""
    if isinstance(term, str):
        return values[term]
    if isinstance(term, int):
        return term
    inner = [evaluate(each, values, axes) for each in term[1:]]
    return REDUCE[term[0]](*inner, axes) if term[0] in REDUCE else IN_JAX[term[0]](*inner)


class Cost(NamedTuple):
    """What a term takes.

    Attributes:
        shape: of its elements.
        known: is it a constant?
        operations: on elements.
        written: elements of results.
    """

    shape: tuple[int, ...]
    known: bool
    operations: int = 0
    written: int = 0


def cost(term: Term, found: Found) -> Cost:
    """What it takes to compute a term of the values found; what is known takes nothing."""
    if isinstance(term, str):
        value = found.values[term]
        return Cost(value.shape, value.constant is not None)
    if isinstance(term, int):
        return Cost((), known=True)
    inner = [cost(each, found) for each in term[1:]]
    shape = wide = np.broadcast_shapes(*(each.shape for each in inner))
    if term[0] in REDUCE:
        shape = tuple(size for axis, size in enumerate(wide) if axis not in found.axes)
    if all(each.known for each in inner):
        return Cost(shape, known=True)
    operations = math.prod(wide) + sum(each.operations for each in inner)
    written = math.prod(shape) + sum(each.written for each in inner)
    return Cost(shape, False, operations, written)


def built(term: Term, found: Found, like: Value) -> list[Node]:
    """The nodes that compute a term of the values found, in another value's shape."""
    names = sorted(found.values, key=lambda name: found.values[name].constant is None)
    values = [found.values[name] for name in names]

    def function(*arrays: jax.Array) -> jax.Array:
        result = evaluate(term, dict(zip(names, arrays, strict=True)), found.axes)
        return jnp.broadcast_to(result, like.shape)

    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values]
    known = [v for v in values if v.constant is not None]
    graph = lift(jax.make_jaxpr(function)(*shapes), known)
    stands_for = dict(zip(graph.inputs, values[len(known) :], strict=True))
    for node in graph.nodes:
        node.inputs = [stands_for.get(value, value) for value in node.inputs]
    return graph.nodes


def bounded(
    term: Term, names: Mapping[str, Range], count: int, limit: float, *, alike: bool
) -> Range | None:
    """The range of a term; None where it or a part of it may exceed the limit.

    Args:
        term: of values.
        names: the ranges of the values.
        count: how many elements a sum or product over axes has.
        limit: of magnitudes.
        alike: must the two sides of a sum have the same sign, so that nothing cancels?
    """
    if isinstance(term, str):
        own = names[term]
        return own if own.size <= limit else None
    if isinstance(term, int):
        return ranges.between(term, term)
    inner = [bounded(each, names, count, limit, alike=alike) for each in term[1:]]
    known = [each for each in inner if each is not None]
    if len(known) != len(inner):
        return None
    if alike and term[0] in ("add", "sub"):
        second = known[1].sign if term[0] == "add" else -known[1].sign
        if not known[0].sign * second > 0:
            return None
    own = _of(term[0], known, count)
    return own if own.size <= limit else None


def _of(name: str, inner: list[Range], count: int) -> Range:
    if name == "reduce_sum":
        return ranges.times(inner[0], count)
    if name == "reduce_prod":  # of exponentials alone
        logs = [count * math.log(max(bound, 1e-300)) for bound in inner[0][:2]]
        return ranges.exp(Range(min(logs[0], 0), max(logs[1], 0)))
    return ranges.OF[name](*inner)


def is_moved(node: Node) -> bool:
    """Does a node move elements only?"""
    return isinstance(node.op, Reshape) or node.op.name in ranges.KEEPS
