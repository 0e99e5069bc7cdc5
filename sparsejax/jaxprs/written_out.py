"""Products written out: weights times data element by element, which other equations add up."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.kinds import DATA, Kind
from sparsejax.jaxprs.moves import MOVES, SAME, Label, is_uniform, moved, uniform
from sparsejax.jaxprs.places import Labels, Place, Site

KEPT = (*SAME, "add", "add_any", "div", "mul", "neg", "select_n", "sub")  # linear in the terms
SUMS = ("cumsum", "reduce_sum", "reduce_window_sum", "scatter-add", "scatter_add")
UNSEEN = count(1)


class Term(NamedTuple):
    """Weights of one leaf times data, in a variable that is nothing but sums of such.

    Attributes:
      leaf: its path.
      labels: which weight each element is multiplied by, 0 for none.
      site: the equation that multiplies, None where the weights had been lost from sight.
      lost: the primitive that they were lost through; "loop" for those of the turn before.
      shifted: a scale's shift was added.
    """

    leaf: str
    labels: Label
    site: Site | None
    lost: str = ""
    shifted: bool = False

    @property
    def key(self) -> Any:
        """Equal for the same product met again."""
        if self.site is None:
            return self.leaf, self.lost
        return self.leaf, self.site.trail, self.site.steps, self.lost


Terms = tuple[Term, ...]
Found = Callable[[Term], None]


def with_terms(kind: Kind, terms: Terms) -> Kind:
    """The kind with other terms; sums of weights times data are data."""
    data = kind.data or bool(terms and kind.labels is None)
    return kind._replace(terms=terms, data=data)


def uses_of(jaxpr: Any) -> Counter:
    """How often each variable is read; what is read twice is more than a sum on its way."""
    read = [v for equation in jaxpr.eqns for v in equation.invars]
    return Counter(v for v in (*read, *jaxpr.outvars) if not hasattr(v, "val"))


def terms_of(
    equation: Any, kinds: Sequence[Kind], labels: Labels, place: Place, found: Found
) -> list[Terms]:
    """The terms of each output; calls `found` with those that are added up to a product.

    One by one, weights scale the data. They are contracted if different weights of a leaf go into
    one number, and no shift came between.
    """
    name, sizes = equation.primitive.name, [math.prod(v.aval.shape) for v in equation.invars]
    nothing: list[Terms] = [()] * len(equation.outvars)
    if name == "mul" and (new := _new_terms(equation, kinds, labels, place)):
        return [new]
    if not any(kind.terms for kind in kinds):
        return nothing
    if name in SUMS:
        place_of = -1 if name.startswith("scatter") else 0
        return [_summed(equation, kinds[place_of].terms, labels, found)]
    # What is repeated is read more than once.
    whole_size = math.prod(equation.outvars[0].aval.shape)
    if name in MOVES and (whole_size == sizes[0] or name not in ("broadcast_in_dim", "tile")):
        return _moved(equation, kinds, labels) or nothing
    if name not in KEPT or len(equation.outvars) != 1 or (name == "div" and kinds[1].terms):
        return nothing
    shape = tuple(equation.outvars[0].aval.shape)
    whole = [k.terms if n == whole_size else () for k, n in zip(kinds, sizes, strict=True)]
    if name in ("add", "add_any", "sub"):
        for term in contracted((*whole[0], *whole[1]), (), labels):
            found(term)
    shifted = name in ("add", "sub") and any(_is_shift(kind) for kind in kinds)
    own = {
        term.key: term._replace(
            labels=np.broadcast_to(term.labels, shape), shifted=term.shifted or shifted
        )
        for terms in whole
        for term in terms
    }
    return [tuple(own.values())]


def contracted(terms: Terms, axes: Sequence[int], labels: Labels) -> list[Term]:
    """Those whose leaf has different weights in one number, after a sum over the axes."""
    leaves = {term.leaf for term in terms}
    groups = [[term for term in terms if term.leaf == leaf] for leaf in sorted(leaves)]
    return [term for group in groups if _differ(group, axes, labels) for term in group]


def _differ(terms: Sequence[Term], axes: Sequence[int], labels: Labels) -> bool:
    if axes and any(term.shifted for term in terms):
        return False
    if terms[0].leaf in labels.coarse and terms[0].site is not None:
        return len({term.key for term in terms}) > 1 or bool(axes)
    own = [term.labels for term in terms]
    if own[0].size == 0:
        return False
    # A stride of 0 says that an axis only repeats: one element of it is enough to compare.
    alike = [all(x.strides[axis] == 0 for x in own) for axis in range(own[0].ndim)]
    narrow = tuple(slice(0, 1) if same else slice(None) for same in alike)
    stack = np.stack([x[narrow] for x in own])
    over = (0, *(axis + 1 for axis in axes))
    highest = stack.max(over)
    lowest = np.where(stack == 0, np.iinfo(np.int64).max, stack).min(over)
    return bool(((highest != lowest) & (highest > 0)).any())


def _new_terms(equation: Any, kinds: Sequence[Kind], labels: Labels, place: Place) -> Terms:
    """Weights times data; weights that were lost from sight go by what they were lost through."""
    shape = tuple(equation.outvars[0].aval.shape)
    terms: list[Term] = []
    for kind, other, v in zip(kinds, kinds[::-1], equation.invars, strict=True):
        if kind.data or not other.data or other.labels is not None:
            continue
        if kind.labels is not None:
            owners = labels.owners(kind.labels)
            for leaf in owners:
                own = kind.labels if len(owners) == 1 else labels.of(leaf, kind.labels)
                site = Site(*place.inside(equation), equation, (Kind(own), DATA))
                terms.append(Term(leaf, np.broadcast_to(own, shape), site))
            continue
        size, own_shape = math.prod(v.aval.shape), tuple(v.aval.shape)
        unseen = np.arange(size).reshape(own_shape) + (next(UNSEEN) << 32)
        terms += [
            Term(labels.path(label), np.broadcast_to(unseen, shape), None, primitive)
            for label, primitive in sorted(kind.sources)
        ]
    return tuple(terms)


def _is_shift(kind: Kind) -> bool:
    return not kind.terms and not kind.data and not kind.is_constant


def _moved(equation: Any, kinds: Sequence[Kind], labels: Labels) -> list[Terms]:
    """The terms of what only moves; an operand's do not lie where another's do."""
    outputs: list[Terms] = [()] * len(equation.outvars)
    for index, kind in enumerate(kinds):
        for term in kind.terms:
            if term.leaf in labels.coarse and term.site is not None:
                shapes = [tuple(v.aval.shape) for v in equation.outvars]
                places = [uniform(term.labels, shape) for shape in shapes]
            else:
                own = [uniform(0, tuple(v.aval.shape)) for v in equation.invars]
                own[index] = term.labels
                places = moved(equation, own) or []
            outputs = [
                (*terms, term._replace(labels=x)) for terms, x in zip(outputs, places, strict=False)
            ] or outputs
    return outputs


def _summed(equation: Any, terms: Terms, labels: Labels, found: Found) -> Terms:
    axes = _summed_axes(equation)
    for term in contracted(terms, axes, labels):
        found(term)
    name, shape = equation.primitive.name, tuple(equation.outvars[0].aval.shape)
    if name == "cumsum":
        return terms
    return tuple(
        term._replace(labels=_reduced(term.labels, axes, shape))
        for term in terms
        if name == "reduce_sum"
    )


def _reduced(labels: Label, axes: Sequence[int], shape: tuple[int, ...]) -> Label:
    if labels.size == 0 or is_uniform(labels):
        return uniform(labels if labels.size else 0, shape)
    for axis in sorted(axes, reverse=True):
        labels = labels.take(0, axis) if labels.strides[axis] == 0 else labels.max(axis)
    return labels


def _summed_axes(equation: Any) -> tuple[int, ...]:
    name, params = equation.primitive.name, equation.params
    if name == "reduce_sum":
        return tuple(params["axes"])
    if name == "cumsum":
        return (params["axis"],)
    if name == "reduce_window_sum":
        return tuple(i for i, size in enumerate(params["window_dimensions"]) if size > 1)
    windows = params["dimension_numbers"].update_window_dims
    rank = len(equation.invars[-1].aval.shape)
    return tuple(axis for axis in range(rank) if axis not in windows)


def stacked(turns: Iterable[Terms], length: int) -> Terms:
    """The terms of what a scan puts out: of its turns, or of the one that stands for all."""
    turns = list(turns)
    if len(turns) == 1:
        return tuple(
            term._replace(labels=np.broadcast_to(term.labels, (length, *term.labels.shape)))
            for term in turns[0]
        )
    own: list[Term] = []
    for index, terms in enumerate(turns):
        for term in terms:
            labels = np.zeros((length, *term.labels.shape), np.int64)
            labels[index] = term.labels
            own.append(term._replace(labels=labels))
    return tuple(own)
