"""Every product that weights take part in, wherever it is nested."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.calls import body_of
from sparsejax.jaxprs.kinds import CONSTANT, DATA, Kind, merged, outputs_of
from sparsejax.jaxprs.moves import Label, is_uniform, uniform
from sparsejax.jaxprs.products import PRODUCTS

Trail = tuple[int, ...]


class Labels(NamedTuple):
    """The labels of the weights: those of `paths[i]` begin at `starts[i]`; labels[i] None is data.

    Labels are > 0; 0 is no weight.
    """

    paths: tuple[str, ...]
    starts: np.ndarray

    def owners(self, labels: Label | None) -> dict[str, int]:
        """How many elements each leaf has there."""
        if labels is None:
            return {}
        if labels.size and is_uniform(labels):
            own, counts = np.asarray(labels[(0,) * labels.ndim])[None], np.array([labels.size])
            numbers = np.searchsorted(self.starts, own, side="right")
        else:
            numbers = np.searchsorted(self.starts, labels.ravel(), side="right")
            counts = np.bincount(numbers, minlength=1)
            numbers = np.flatnonzero(counts)
            counts = counts[numbers]
        found = zip(numbers.tolist(), counts.tolist(), strict=True)
        return {self.paths[number - 1]: count for number, count in found if number}

    def path(self, label: int) -> str:
        """The leaf that a label belongs to."""
        return self.paths[int(np.searchsorted(self.starts, label, side="right")) - 1]


class Site(NamedTuple):
    """A product with a weight.

    Attributes:
      trail: the ids of the equations around it, and its own.
      steps: of each loop around it, which turn; None if all turns are alike.
      times: how often it runs.
      choices: (trail, branch) of each `cond` around it.
      equation: the product.
      kinds: of its two operands.
    """

    trail: Trail
    steps: tuple[int | None, ...]
    times: int
    choices: tuple[tuple[Trail, int], ...]
    equation: Any
    kinds: tuple[Kind, Kind]


class Sites(NamedTuple):
    """All products with weights, and the weights that were lost before one, with where."""

    found: list[Site]
    lost: dict[str, str]


def find_sites(closed: Any, kinds: Sequence[Label | None], labels: Labels) -> Sites:
    """The products in a jaxpr; `kinds` are the labels of its inputs, None for data."""
    reader = _Reader(labels)
    own = [DATA if label is None else Kind(label) for label in kinds]
    reader.walk(closed.jaxpr, own, _Place((), (), 1, ()))
    return Sites(reader.found, reader.lost)


class _Place(NamedTuple):
    """Where the reader is."""

    trail: Trail
    steps: tuple[int | None, ...]
    times: int
    choices: tuple[tuple[Trail, int], ...]

    def inside(self, equation: Any) -> "_Place":
        return self._replace(trail=(*self.trail, id(equation)))

    def turn(self, step: int | None, times: int) -> "_Place":
        return self._replace(steps=(*self.steps, step), times=self.times * times)


class _Reader:
    """Walks a jaxpr once, in order; loops until what their variables hold is settled."""

    def __init__(self, labels: Labels):
        self.labels = labels
        self.found: list[Site] = []
        self.lost: dict[str, str] = {}

    def walk(self, jaxpr: Any, kinds: Sequence[Kind], place: _Place) -> list[Kind]:
        """The kinds of the outputs."""
        env: dict[Any, Kind] = dict(zip(jaxpr.invars, kinds, strict=True))
        read = lambda v: CONSTANT if hasattr(v, "val") else env.get(v, CONSTANT)
        for equation in jaxpr.eqns:
            own = [read(v) for v in equation.invars]
            results = self._equation(equation, own, place)
            env.update(zip(equation.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, equation: Any, kinds: list[Kind], place: _Place) -> Sequence[Kind]:
        name = equation.primitive.name
        if name in PRODUCTS:
            return [self._product(equation, kinds, place)]
        if all(kind.is_constant for kind in kinds):
            return [CONSTANT] * len(equation.outvars)
        if (body := body_of(equation)) is not None:
            return self.walk(body.jaxpr, kinds, place.inside(equation))
        if name in CONTROL:
            return CONTROL[name](self, equation, kinds, place.inside(equation))
        return outputs_of(equation, kinds, self.sources, self.note)

    def _product(self, equation: Any, kinds: list[Kind], place: _Place) -> Kind:
        left, right = kinds[:2]
        for kind, other in ((left, right), (right, left)):
            if kind.sources and other.labels is None:
                self.note(kind.sources)
        if left.labels is not None or right.labels is not None:
            own = place.inside(equation)
            self.found.append(Site(*own, equation, (left, right)))
        weighty = all(not k.data and (k.labels is not None or k.sources) for k in (left, right))
        return CONSTANT if weighty else DATA

    def sources(self, kind: Kind, primitive: str) -> frozenset[tuple[int, str]]:
        """Where the weights that a variable holds were lost."""
        if kind.labels is None:
            return kind.sources
        firsts = {
            self.labels.starts[self.labels.paths.index(p)] for p in self.labels.owners(kind.labels)
        }
        return kind.sources | {(int(first), primitive) for first in firsts}

    def note(self, sources: frozenset[tuple[int, str]]) -> None:
        """These weights went into a product that cannot be told as theirs."""
        for label, primitive in sources:
            self.lost.setdefault(self.labels.path(label), primitive)

    def settled(
        self, turn: Callable[[list[Kind]], Sequence[Kind]], carry: list[Kind]
    ) -> list[Kind]:
        """What the variables that a loop carries may hold at the start of any turn."""
        for _ in range(2 * len(carry) + 2):
            found, lost = list(self.found), dict(self.lost)
            after = turn(carry)
            self.found, self.lost = found, lost
            new = [merged(a, b, self.sources) for a, b in zip(carry, after, strict=True)]
            if all(
                a.labels is b.labels and a.data == b.data for a, b in zip(carry, new, strict=True)
            ):
                break
            carry = new
        return carry


def _scan(reader: _Reader, equation: Any, kinds: list[Kind], place: _Place) -> list[Kind]:
    params, body = equation.params, equation.params["jaxpr"].jaxpr
    first, length = params["num_consts"], params["length"]
    xs_from = first + params["num_carry"]
    consts, carry, xs = kinds[:first], kinds[first:xs_from], kinds[xs_from:]
    slices = lambda i: [k if k.labels is None else k._replace(labels=k.labels[i]) for k in xs]
    if not length:
        return [*carry, *[CONSTANT] * (len(equation.outvars) - len(carry))]
    num_carry = len(carry)
    turn = lambda c, i, where: reader.walk(body, [*consts, *c, *slices(i)], where)
    carry = reader.settled(lambda c: turn(c, 0, place)[:num_carry], carry)
    if all(k.labels is None or is_uniform(k.labels) for k in xs):
        rows = [turn(carry, 0, place.turn(None, length))]
    else:
        rows = [turn(carry, i, place.turn(i, 1)) for i in range(length)]
    carry = [merged(a, b, reader.sources) for a, b in zip(carry, rows[0][:num_carry], strict=True)]
    stacks = zip(*(row[num_carry:] for row in rows), strict=True)
    return [*carry, *(_stacked(reader, list(ys), length) for ys in stacks)]


def _stacked(reader: _Reader, turns: list[Kind], length: int) -> Kind:
    """What a scan puts out, turn by turn."""
    if any(kind.labels is None for kind in turns):
        return turns[0]._replace(labels=None, sources=reader.sources(turns[0], "scan"))
    if len(turns) == 1:
        labels = np.broadcast_to(turns[0].labels, (length, *turns[0].labels.shape))  # type: ignore
        return turns[0]._replace(labels=labels, spread=True)
    return turns[0]._replace(labels=np.stack([kind.labels for kind in turns]))  # type: ignore


def _while(reader: _Reader, equation: Any, kinds: list[Kind], place: _Place) -> list[Kind]:
    params = equation.params
    skip = params["cond_nconsts"]
    consts, carry = (
        kinds[skip : skip + params["body_nconsts"]],
        kinds[skip + params["body_nconsts"] :],
    )
    turn = lambda c: reader.walk(params["body_jaxpr"].jaxpr, [*consts, *c], place.turn(None, 1))
    carry = reader.settled(turn, list(carry))
    after = turn(carry)
    return [merged(a, b, reader.sources) for a, b in zip(carry, after, strict=True)]


def _cond(reader: _Reader, equation: Any, kinds: list[Kind], place: _Place) -> list[Kind]:
    results: list[Kind] | None = None
    for index, branch in enumerate(equation.params["branches"]):
        own = place._replace(choices=(*place.choices, (place.trail, index)))
        after = reader.walk(branch.jaxpr, kinds[1:], own)
        if results is None:
            results = after
        else:
            results = [merged(a, b, reader.sources) for a, b in zip(results, after, strict=True)]
    results = results or []
    chosen_by_data = kinds[0].data
    return [k._replace(data=k.data or (chosen_by_data and k.labels is None)) for k in results]


def _shard_map(reader: _Reader, equation: Any, kinds: list[Kind], place: _Place) -> list[Kind]:
    params = equation.params
    body, own = params["jaxpr"], []
    for kind, v in zip(kinds, body.invars, strict=True):
        if kind.labels is None:
            own.append(kind)
        elif is_uniform(kind.labels):
            own.append(kind._replace(labels=uniform(kind.labels, tuple(v.aval.shape))))
        else:
            own.append(Kind(sources=reader.sources(kind, "shard_map")))
    names = {
        name
        for spec in params["in_specs"]
        for part in spec
        if part is not None
        for name in (part if isinstance(part, tuple) else (part,))
    }
    times = math.prod(params["mesh"].shape[name] for name in names)
    after = reader.walk(body, own, place.turn(None, times))
    return [
        kind
        if kind.labels is None
        else kind._replace(labels=uniform(kind.labels, tuple(v.aval.shape)))
        if is_uniform(kind.labels)
        else Kind(sources=reader.sources(kind, "shard_map"))
        for kind, v in zip(after, equation.outvars, strict=True)
    ]


CONTROL: dict[str, Callable[..., list[Kind]]] = {
    "cond": _cond,
    "scan": _scan,
    "shard_map": _shard_map,
    "while": _while,
}
