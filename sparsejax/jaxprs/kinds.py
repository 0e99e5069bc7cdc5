"""What a variable holds: weights, what is made of them, data or constants; and what follows."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.moves import SAME, Label, equal, moved, uniform

ELEMENTWISE = (
    *("acos", "acosh", "asinh", "atan", "atanh", "complex", "conj", "imag", "real", "tie"),
    *("abs", "add", "add_any", "and", "asin", "atan2", "cbrt", "ceil", "clamp", "cos"),
    *("convert_element_type", "copy", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp"),
    *("exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p"),
    *("logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "pow"),
    *("reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt"),
    *("square", "stop_gradient", "sub", "tan", "tanh", "xor"),
)
# What a weight keeps its meaning through, but for a constant factor or a mask.
LINEAR = (*SAME, "mul", "div", "neg", "select_n")
# Equations that bring weights and data together without a product that would count.
JOINS = (
    *("concatenate", "pad", "dynamic_update_slice", "scatter", "scatter-add", "scatter_add"),
    *("scatter_max", "scatter_min", "scatter_mul", "sort", "top_k", "reduce", "random_bits"),
    *("broadcast_in_dim", "reshape", "dynamic_slice"),
)


class Kind(NamedTuple):
    """What a variable holds; a constant by default.

    Attributes:
      labels: of weights: which weight each element is, 0 for none.
      spread: weights that were spread over more elements: scales, shifts; data of one number.
      wide: weights that were spread from a matrix, or only got axes of 1 in front.
      data: depends on the inputs, or is what a product put out.
      sources: (label, primitive) of the weights that went into it, lost from sight there.
      terms: of what is nothing but sums of weights times data: the products, see `written_out`.
      met: labels of the weights that were lost anywhere on the way of the data.
      through: the equations that made more of the weights than a multiple of them.
    """

    labels: Label | None = None
    spread: bool = False
    wide: bool = False
    data: bool = False
    sources: frozenset[tuple[int, str]] = frozenset()
    terms: tuple[Any, ...] = ()
    met: frozenset[int] = frozenset()
    through: frozenset[str] = frozenset()

    @property
    def is_constant(self) -> bool:
        """Neither weights nor data, nor made of any."""
        return self.labels is None and not self.data and not self.sources


CONSTANT = Kind()
DATA = Kind(data=True)
Lost = Callable[[Kind, str], frozenset[tuple[int, str]]]


def met_by(kinds: Sequence[Kind]) -> frozenset[int]:
    """What the outputs of an equation of these have met."""
    return frozenset().union(*(kind.met | {label for label, _ in kind.sources} for kind in kinds))


def outputs_of(equation: Any, kinds: Sequence[Kind], lost: Lost, unknown: Any) -> list[Kind]:
    """The kinds of the outputs of an equation that is neither a product nor a call.

    Args:
      equation: of a jaxpr.
      kinds: of its operands.
      lost: gives the sources of labels that go no further.
      unknown: called with the sources of weights that meet data in an equation not known here.
    """
    name, count = equation.primitive.name, len(equation.outvars)
    held = [kind for kind in kinds if kind.labels is not None]
    if not held:
        return [_without_weights(equation, kinds, index) for index in range(count)]
    if name == "gather" or (name == "dynamic_slice" and kinds[0].labels is not None):
        out = moved(equation, [kinds[0].labels]) if name != "gather" else None  # type: ignore[list-item]
        if out is not None:
            return [kinds[0]._replace(labels=out[0])]
        picked_by_data = any(kind.data for kind in kinds[1:])  # a look-up
        return [Kind(data=picked_by_data, sources=lost(kinds[0], name))]
    if name in SAME and count == len(kinds):
        return list(kinds)
    if any(kind.data for kind in kinds):
        if name not in ELEMENTWISE and name not in JOINS:
            unknown(frozenset().union(*(lost(kind, name) for kind in held)))
        return [_met_by_data(equation, kinds, lost)] * count
    if name in ELEMENTWISE:
        return [_elementwise(equation, kinds, lost)] * count
    whole = [_labels_or_none(kind, v) for kind, v in zip(kinds, equation.invars, strict=True)]
    out = moved(equation, whole)
    if out is None:
        return [Kind(sources=frozenset().union(*(lost(kind, name) for kind in kinds)))] * count
    return [
        held[0]._replace(
            labels=labels,
            spread=any(kind.spread for kind in held) or _is_spread(equation, held[0], labels),
            wide=any(kind.wide for kind in held) or _is_wide(held[0], labels),
            through=frozenset().union(*(kind.through for kind in held)),
        )
        for labels in out
    ]


def _labels_or_none(kind: Kind, variable: Any) -> Label:
    return uniform(0, tuple(variable.aval.shape)) if kind.labels is None else kind.labels


def _is_spread(equation: Any, kind: Kind, labels: Label) -> bool:
    assert kind.labels is not None
    if kind.labels.ndim < 2 <= labels.ndim and max(labels.shape) == labels.size:
        return True  # a vector along one axis of the data
    return (
        equation.primitive.name in ("broadcast_in_dim", "tile") and labels.size > kind.labels.size
    )


def _is_wide(kind: Kind, labels: Label) -> bool:
    """Was a matrix put beside others, or given axes of 1 as if it were?"""
    assert kind.labels is not None
    matrix = not kind.spread and sum(size > 1 for size in kind.labels.shape) > 1
    in_front = labels.ndim > kind.labels.ndim and len(labels) == 1
    return matrix and (in_front or labels.size > kind.labels.size)


def _met_by_data(equation: Any, kinds: Sequence[Kind], lost: Lost) -> Kind:
    """Weights times a number that depends on data stay weights, others are lost among the data."""
    name = equation.primitive.name
    held = [kind for kind in kinds if kind.labels is not None]
    data = zip(kinds, equation.invars, strict=True)
    numbers = all(k.spread or math.prod(v.aval.shape) == 1 for k, v in data if k.data)
    own = any(not kind.spread and kind.labels.size > 1 for kind in held)  # type: ignore[union-attr]
    if own and numbers and name in ("mul", "div", "select_n"):
        rest = [CONSTANT if kind.data else kind for kind in kinds]
        out = _elementwise(equation, rest, lost)
        return out._replace(through=out.through | {name})
    matrices = [kind for kind in held if not _is_scale(kind) and not kind.wide]
    return Kind(data=True, sources=frozenset().union(*(lost(kind, name) for kind in matrices)))


def _without_weights(equation: Any, kinds: Sequence[Kind], index: int) -> Kind:
    """What is made of data, constants and mixtures."""
    name = equation.primitive.name
    if name in SAME and len(equation.outvars) == len(kinds):
        return kinds[index]
    sources: frozenset[tuple[int, str]] = frozenset().union(*(kind.sources for kind in kinds))
    if not any(kind.data for kind in kinds):
        return Kind(sources=sources)
    # A number that is spread to the shape of weights.
    spread = name == "broadcast_in_dim" and math.prod(equation.invars[0].aval.shape) == 1
    own = [kind for kind in kinds if not kind.is_constant]
    if len(own) > 1:
        factors = LINEAR if name in LINEAR or all(kind.sources for kind in own) else ()
        return Kind(data=True, sources=frozenset(s for s in sources if s[1] in factors))
    return Kind(data=True, spread=spread, sources=sources)


def _elementwise(equation: Any, kinds: Sequence[Kind], lost: Lost) -> Kind:
    """Weights whose values change one by one, unless several weights meet in an element."""
    name, shape = equation.primitive.name, tuple(equation.outvars[0].aval.shape)
    held = [kind for kind in kinds if kind.labels is not None]
    held_back = any(
        kind.is_constant and math.prod(v.aval.shape) > 1
        for kind, v in zip(kinds, equation.invars, strict=True)
    )
    full = [kind for kind in held if kind.labels.shape == shape and not _is_scale(kind)]  # type: ignore[union-attr]
    one = (full or held)[0]
    if any(not equal(one.labels, kind.labels) for kind in (full or held)):  # type: ignore[arg-type]
        return Kind(sources=frozenset().union(*(lost(kind, name) for kind in held)))
    if not full and held_back:  # the scale of a norm on inputs that the function holds itself
        return Kind(data=True, sources=frozenset().union(*(lost(kind, name) for kind in held)))
    labels = one.labels
    assert labels is not None
    if labels.shape != shape:
        labels = np.broadcast_to(labels, shape)
    through = frozenset().union(*(kind.through for kind in held))
    if equation.outvars[0].aval.dtype == bool:  # a mask
        return Kind(labels, one.spread)
    if name not in LINEAR or any(not equal(one.labels, kind.labels) for kind in held):  # type: ignore[arg-type]
        through |= {name}
    return Kind(labels, one.spread or labels.size > one.labels.size, through=through)  # type: ignore[union-attr]


def _is_scale(kind: Kind) -> bool:
    """Vectors and what was spread: scales and shifts, unless a product contracts them."""
    assert kind.labels is not None
    return kind.spread or kind.labels.ndim < 2


def merged(one: Kind, other: Kind, lost: Lost) -> Kind:
    """What a variable may hold that is one or the other, as after a branch or a turn."""
    if one.labels is not None and other.labels is not None and equal(one.labels, other.labels):
        return one._replace(through=one.through | other.through)
    sources = one.sources | other.sources
    if one.labels is not None or other.labels is not None:
        sources = sources | lost(one, "cond") | lost(other, "cond")
    own = {term.key: term for term in (*one.terms, *other.terms)}
    data, met = one.data or other.data, one.met | other.met
    return Kind(data=data, sources=sources, terms=tuple(own.values()), met=met)
