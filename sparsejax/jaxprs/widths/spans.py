"""Axes as runs of positions that are kept or removed as one: a union-find of spans.

A span is a run of units, or spans one after the other (parts, as concatenation makes them), or
nested in each other (factors, outermost first, as a reshape makes them): then a position is kept
where all factors keep theirs. What unifying two takes of cuts is made in all axes that share them.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

MOST_CUTS = 16  # cuts that make new ones: more are a roll of channels over themselves


class Spans:
    """All spans of a trace, by number. `ONE` is every axis of length 1."""

    ONE = 0

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._parts: list[tuple[int, ...]] = []
        self._factors: list[tuple[int, ...]] = []
        self._reasons: list[str] = []
        self.because = ""  # of what is frozen while an equation is read
        self._made(1, (), (), "one position")

    def new(self, size: int, reason: str = "") -> int:
        """A run of units of its own, which a reason keeps whole."""
        return self.ONE if size == 1 else self._made(size, (), (), reason)

    def _made(
        self, size: int, parts: tuple[int, ...], factors: tuple[int, ...], reason: str = ""
    ) -> int:
        self._parents.append(len(self._parents))
        self._sizes.append(int(size))
        self._parts.append(parts)
        self._factors.append(factors)
        self._reasons.append(reason or ("no position" if size == 0 else ""))
        return len(self._parents) - 1

    def find(self, span: int) -> int:
        """What stands for the span and for all that are unified with it."""
        while self._parents[span] != span:
            self._parents[span] = span = self._parents[self._parents[span]]
        return span

    def size(self, span: int) -> int:
        """The number of positions."""
        return self._sizes[span]

    def reason(self, run: int) -> str:
        """Why a run is kept whole; "" if it need not be."""
        return self._reasons[run]

    def parts(self, span: int) -> list[int]:
        """The spans one after the other, none of which has parts."""
        span = self.find(span)
        return [p for part in self._parts[span] for p in self.parts(part)] or [span]

    def factors(self, span: int) -> list[int]:
        """The spans nested in each other, none of which has factors."""
        span = self.find(span)
        return [f for factor in self._factors[span] for f in self.factors(factor)] or [span]

    def runs(self, span: int) -> list[int]:
        """The runs of units that a span is made of, each once."""
        seen: dict[int, bool] = {}  # is it a run?
        left = [span]
        while left:
            own = self.find(left.pop())
            if own not in seen:
                seen[own] = self._is_run(own)
                left += reversed(self._parts[own] or self._factors[own])
        return [own for own, is_run in seen.items() if is_run]

    def freeze(self, span: int, reason: str = "") -> None:
        """Keep the span whole; its runs remember the first reason."""
        for run in self.runs(span):
            self._reasons[run] = self._reasons[run] or reason or self.because

    def joined(self, spans: Sequence[int]) -> int:
        """One after the other."""
        spans = [span for span in spans if self._sizes[span]]
        if len(spans) == 1:
            return spans[0]
        return self._made(sum(map(self.size, spans)), tuple(spans), ())

    def nested(self, spans: Sequence[int]) -> int:
        """Each position of one with all of the next; what is one position for good is left out."""
        for_good = lambda span: self._sizes[span] == 1 and self._reasons[self.runs(span)[0]]
        real = [span for span in spans if not for_good(span)]
        if len(real) < 2:
            return real[0] if real else self.ONE
        return self._made(math.prod(map(self.size, real)), (), tuple(real))

    def range(self, span: int, start: int, stop: int) -> int:
        """The positions from start to stop."""
        if (start, stop) == (0, self._sizes[span]):
            return span
        if start == stop:
            return self.new(0)
        self._cut(span, start)
        self._cut(span, stop)
        pairs = zip(self.parts(span), self._ends(span), strict=True)
        return self.joined([part for part, end in pairs if start < end <= stop])

    def divided(self, span: int, sizes: Sequence[int]) -> list[int]:
        """The factors of these sizes, outermost first."""
        if len(sizes) == 1:
            return [span]
        outer, inner = self._two(span, sizes[0], math.prod(sizes[1:]))
        return [outer, *self.divided(inner, sizes[1:])]

    def unify(self, one: int, other: int) -> None:
        """The two hold the same channels."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        assert self._sizes[one] == self._sizes[other]
        if self._is_run(one) or self._is_run(other):
            run, rest = (one, other) if self._is_run(one) else (other, one)
            if run in self.factors(rest):  # all else in it is one position
                for factor in {*self.factors(rest)} - {run}:
                    self.freeze(factor)
                run, rest = rest, run
            self._parents[run] = rest
            if self._reasons[run]:
                self.freeze(rest, self._reasons[run])
        elif self._parts[one] and self._parts[other]:
            self._unify_parts(one, other)
        elif self._factors[one] and self._factors[other]:
            self._unify_factors(one, other)
        else:
            parts, factors = (one, other) if self._parts[one] else (other, one)
            self._to_alike(parts, factors)
            self.unify(one, other)

    def _is_run(self, span: int) -> bool:
        return not self._parts[span] and not self._factors[span]

    def _unify_parts(self, one: int, other: int) -> None:
        for _ in range(MOST_CUTS):
            if (ends := self._ends(one)) == (others := self._ends(other)):
                break
            for place in {*ends, *others}:
                self._cut(one, place)
                self._cut(other, place)
        else:
            self.freeze(one)
            self.freeze(other)
            return
        pairs = list(zip(self.parts(one), self.parts(other), strict=True))
        self._parents[one] = other
        for pair in pairs:
            self.unify(*pair)

    def _ends(self, span: int) -> list[int]:
        return list(accumulate(map(self.size, self.parts(span))))

    def _unify_factors(self, one: int, other: int) -> None:
        first, *rest = self.factors(one)
        second, *more = self.factors(other)
        sizes = self._sizes[first], self._sizes[second]
        if max(sizes) % min(sizes):
            self.freeze(one)
            self.freeze(other)
            return
        # (2, 6) and (4, 3) are the same 12 units seen in two ways: both are split to the finer
        # factor, 2 x (2 x 3), until the factors agree or do not divide each other.
        size = min(sizes)
        inner = self._sizes[one] // size
        if size == 1 and sizes != (1, 1):
            self.freeze(first if sizes[0] == 1 else second)
            smaller = self.nested(rest if sizes[0] == 1 else more)
            self.unify(smaller, other if sizes[0] == 1 else one)
            return
        pairs = (
            (first, self.nested(rest)) if sizes[0] == size else self._two(one, size, inner),
            (second, self.nested(more)) if sizes[1] == size else self._two(other, size, inner),
        )
        for pair in zip(*pairs, strict=True):
            self.unify(*pair)

    def _to_alike(self, parts: int, factors: int) -> None:
        """Make factors of parts where each is a multiple of the inner ones, else parts of both."""
        outer = self.factors(factors)[0]
        inner = self._sizes[factors] // self._sizes[outer]
        if self._sizes[outer] > 1 and all(self._sizes[p] % inner == 0 for p in self.parts(parts)):
            self._two(parts, self._sizes[outer], inner)
        else:
            for place in self._ends(parts):
                self._cut(factors, place)

    def _cut(self, span: int, place: int) -> None:
        """Let a part end at this place."""
        for part, end in zip(self.parts(span), self._ends(span), strict=True):
            start = end - self._sizes[part]
            if start < place < end:
                self._parts[part] = tuple(self._halves(part, place - start))
                self._factors[part] = ()
                return

    def _halves(self, part: int, place: int) -> list[int]:
        """What a run, or nested spans, are before the place and behind it."""
        if self._is_run(part):
            sizes = (place, self._sizes[part] - place)
            return [self._made(size, (), (), self._reasons[part]) for size in sizes]
        outer, *rest = self.factors(part)
        inner = self.nested(rest)
        size, count = self._sizes[inner], self._sizes[outer]
        whole, left = divmod(place, size)
        halves = [self._of(outer, 0, whole, inner)] if whole else []
        if left:
            ends = (self.range(inner, 0, left), self.range(inner, left, size))
            halves += [self._of(outer, whole, whole + 1, end) for end in ends]
        behind = whole + (left > 0)
        return [*halves, self._of(outer, behind, count, inner)] if behind < count else halves

    def _of(self, outer: int, start: int, stop: int, inner: int) -> int:
        return self.nested([self.range(outer, start, stop), inner])

    def _two(self, span: int, size: int, inner: int) -> tuple[int, int]:
        """The span as one of this size, and one of `inner` nested in it."""
        span = self.find(span)
        if size == 1 or inner == 1:
            return (self.ONE, span) if size == 1 else (span, self.ONE)
        if self._parts[span]:
            return self._two_of_parts(span, size, inner)
        if not self._factors[span]:
            reason = self._reasons[span]
            self._factors[span] = (self.new(size, reason), self.new(inner, reason))
            return self._factors[span]  # type: ignore[return-value]
        first, *rest = self.factors(span)
        own = self._sizes[first]
        if own == size:
            return first, self.nested(rest)
        if size % own == 0:
            outer, within = self._two(self.nested(rest), size // own, inner)
            return self.nested([first, outer]), within
        if own % size == 0:
            outer, within = self._two(first, size, own // size)
            return outer, self.nested([within, *rest])
        self.freeze(span)
        return self.new(size, self.because), self.new(inner, self.because)

    def _two_of_parts(self, span: int, size: int, inner: int) -> tuple[int, int]:
        parts = self.parts(span)
        if all(self._sizes[part] % inner == 0 for part in parts):
            pairs = [self._row(part, inner) for part in parts]
            outer = self.joined([first for first, _ in pairs])
            rows = [row for _, row in pairs]
        else:
            rows = [self.range(span, i * inner, (i + 1) * inner) for i in range(size)]
            outer = self.new(size, self.because)
        for row in rows[1:]:
            self.unify(rows[0], row)
        span = self.find(span)
        self._parts[span], self._factors[span] = (), (outer, rows[0])
        return outer, rows[0]

    def _row(self, part: int, inner: int) -> tuple[int, int]:
        """How often the row of this size, and the row; how often once is a unit of its own."""
        if self._sizes[part] == inner:
            return self._made(1, (), ()), part
        return self._two(part, self._sizes[part] // inner, inner)
