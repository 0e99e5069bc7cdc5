"""Every product that weights take part in, wherever it is nested."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.calls import body_of
from sparsejax.jaxprs.kinds import CONSTANT, DATA, Kind, merged, met_by, outputs_of
from sparsejax.jaxprs.moves import Label, is_uniform, uniform
from sparsejax.jaxprs.places import Labels, Place, Site
from sparsejax.jaxprs.products import PRODUCTS
from sparsejax.jaxprs.read import walk
from sparsejax.jaxprs.written_out import Term, Terms, stacked, terms_of, uses_of, with_terms


class Sites(NamedTuple):
    """All products with weights, and the weights that were lost before one, with where.

    Coarse labels leave it in doubt whether weights are contracted or scale the data.
    """

    found: list[Site]
    lost: dict[str, str]
    doubtful: frozenset[str]


def find_sites(closed: Any, kinds: Sequence[Label | None], labels: Labels) -> Sites:
    """The products in a jaxpr; `kinds` are the labels of its inputs, None for data."""
    reader = _Reader(labels)
    own = [DATA if label is None else Kind(label) for label in kinds]
    reader.walk(closed.jaxpr, own, Place((), (), 1, ()))
    return Sites(reader.found, reader.lost, frozenset(reader.doubtful))


class _Reader:
    """Walks a jaxpr once, in order; loops until what their variables hold is settled."""

    def __init__(self, labels: Labels):
        self.labels = labels
        self.found: list[Site] = []
        self.lost: dict[str, str] = {}
        self.doubtful: set[str] = set()
        self.written: set[Any] = set()
        self.uses: dict[int, Counter] = {}

    def walk(self, jaxpr: Any, kinds: Sequence[Kind], place: Place) -> list[Kind]:
        """The kinds of the outputs."""
        uses = self.uses.setdefault(id(jaxpr), uses_of(jaxpr))
        once = lambda v, kind: kind if uses[v] == 1 or not kind.terms else kind._replace(terms=())

        def step(equation: Any, own: list[Kind]) -> list[Kind]:
            results = self._equation(equation, own, place)
            return [once(v, kind) for v, kind in zip(equation.outvars, results, strict=True)]

        inputs = [once(v, kind) for v, kind in zip(jaxpr.invars, kinds, strict=True)]
        return walk(jaxpr, jaxpr.constvars, inputs, step, lambda v, value: CONSTANT)

    def _equation(self, equation: Any, kinds: list[Kind], place: Place) -> Sequence[Kind]:
        name = equation.primitive.name
        if name in PRODUCTS:
            return [self._product(equation, kinds, place)]
        if all(kind.is_constant for kind in kinds):
            return [CONSTANT] * len(equation.outvars)
        if (body := body_of(equation)) is not None:
            return self.walk(body.jaxpr, kinds, place.inside(equation))
        if name in CONTROL:
            return CONTROL[name](self, equation, kinds, place.inside(equation))
        results = outputs_of(equation, kinds, self.sources, self.note)
        terms = terms_of(equation, kinds, self.labels, place, self.contracted)
        met = met_by(kinds)
        return [
            with_terms(kind._replace(met=met), own)
            for kind, own in zip(results, terms, strict=True)
        ]

    def _product(self, equation: Any, kinds: list[Kind], place: Place) -> Kind:
        left, right = kinds[:2]
        for kind, other in ((left, right), (right, left)):
            if other.labels is None:  # what is in both, as positions, is a shift of the data
                shifts = met_by([other])
                self.note(frozenset(s for s in kind.sources if s[0] not in shifts))
        if left.labels is not None or right.labels is not None:
            own = place.inside(equation)
            self.found.append(Site(*own, equation, (left, right)))
        weighty = all(not k.data and (k.labels is not None or k.sources) for k in (left, right))
        return CONSTANT if weighty else DATA._replace(met=met_by(kinds[:2]))

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

    def contracted(self, term: Term) -> None:
        """This product is written out."""
        if term.site is None:
            self.lost.setdefault(term.leaf, term.lost)
        elif term.leaf in self.labels.coarse:
            self.doubtful.add(term.leaf)
        elif term.key not in self.written:
            self.written.add(term.key)
            self.found.append(term.site)

    def settled(
        self, turn: Callable[[list[Kind]], Sequence[Kind]], carry: Sequence[Kind]
    ) -> tuple[list[Kind], list[Terms]]:
        """What the variables that a loop carries may hold at the start of any turn, and add up."""
        begun = [kind.terms for kind in carry]
        carry = [with_terms(kind, ()) for kind in carry]
        after: Sequence[Kind] = carry
        for _ in range(2 * len(carry) + 2):
            kept = list(self.found), dict(self.lost), set(self.doubtful), set(self.written)
            after = turn(carry)
            self.found, self.lost, self.doubtful, self.written = kept
            new = [merged(a, b, self.sources) for a, b in zip(carry, after, strict=True)]
            if all(
                a.labels is b.labels and a.data == b.data for a, b in zip(carry, new, strict=True)
            ):
                break
            carry = [with_terms(kind, ()) for kind in new]
        return carry, [
            (*first, *(term._replace(lost=term.lost or "loop") for term in kind.terms))
            for first, kind in zip(begun, after, strict=True)
        ]


def _scan(reader: _Reader, equation: Any, kinds: list[Kind], place: Place) -> list[Kind]:
    params, body = equation.params, equation.params["jaxpr"].jaxpr
    first, length = params["num_consts"], params["length"]
    xs_from = first + params["num_carry"]
    consts, carry, xs = kinds[:first], kinds[first:xs_from], kinds[xs_from:]
    consts = [with_terms(kind, ()) for kind in consts]
    slices = lambda i: [
        with_terms(k if k.labels is None else k._replace(labels=k.labels[i]), ()) for k in xs
    ]
    if not length:
        return [*carry, *[CONSTANT] * (len(equation.outvars) - len(carry))]
    num_carry = len(carry)
    turn = lambda c, i, where: reader.walk(body, [*consts, *c, *slices(i)], where)
    # The labels of a carry depend on what the turn before made of it, so the body is read until
    # they rest; only then does a second reading tell which weights each turn uses.
    every = place.turn(None, length)
    begun = [kind.terms for kind in carry]
    carry, terms = reader.settled(lambda c: turn(c, 0, every)[:num_carry], carry)
    if all(k.labels is None or is_uniform(k.labels) for k in xs):
        rows = [turn(_each_with(carry, terms), 0, every)]
    else:
        rows, terms = [], begun
        for i in range(length):
            rows.append(turn(_each_with(carry, terms), i, place.turn(i, 1)))
            terms = [kind.terms for kind in rows[-1][:num_carry]]
    after = [merged(a, b, reader.sources) for a, b in zip(carry, rows[0][:num_carry], strict=True)]
    after = _each_with(after, [kind.terms for kind in rows[-1][:num_carry]])
    stacks = zip(*(row[num_carry:] for row in rows), strict=True)
    return [*after, *(_stacked(reader, list(ys), length) for ys in stacks)]


def _each_with(kinds: Sequence[Kind], terms: Sequence[Terms]) -> list[Kind]:
    return [with_terms(kind, own) for kind, own in zip(kinds, terms, strict=True)]


def _stacked(reader: _Reader, turns: list[Kind], length: int) -> Kind:
    """What a scan puts out, turn by turn."""
    if any(kind.labels is None for kind in turns):
        terms = stacked([kind.terms for kind in turns], length)
        sources = reader.sources(turns[0], "scan")
        return turns[0]._replace(labels=None, sources=sources, terms=terms)
    if len(turns) == 1:
        labels = np.broadcast_to(turns[0].labels, (length, *turns[0].labels.shape))  # type: ignore
        return turns[0]._replace(labels=labels, spread=True)
    return turns[0]._replace(labels=np.stack([kind.labels for kind in turns]))  # type: ignore


def _while(reader: _Reader, equation: Any, kinds: list[Kind], place: Place) -> list[Kind]:
    params = equation.params
    skip = params["cond_nconsts"]
    consts, carry = (
        kinds[skip : skip + params["body_nconsts"]],
        kinds[skip + params["body_nconsts"] :],
    )
    turn = lambda c: reader.walk(params["body_jaxpr"].jaxpr, [*consts, *c], place.turn(None, 1))
    consts = [with_terms(kind, ()) for kind in consts]
    carry, terms = reader.settled(turn, carry)
    after = turn(_each_with(carry, terms))
    return [merged(a, b, reader.sources) for a, b in zip(carry, after, strict=True)]


def _cond(reader: _Reader, equation: Any, kinds: list[Kind], place: Place) -> list[Kind]:
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


def _shard_map(reader: _Reader, equation: Any, kinds: list[Kind], place: Place) -> list[Kind]:
    params = equation.params
    body, own = params["jaxpr"], []
    for kind, v in zip([with_terms(kind, ()) for kind in kinds], body.invars, strict=True):
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
        with_terms(kind, ())
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
