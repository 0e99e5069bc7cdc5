"""`channel_groups`: which channels of which leaves are kept or removed as one."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from sparsejax import text
from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs.read import by_paths
from sparsejax.jaxprs.widths.filling import counted
from sparsejax.jaxprs.widths.held import held
from sparsejax.jaxprs.widths.program import Program, Reader, Value
from sparsejax.jaxprs.widths.rules import freeze, fresh
from sparsejax.jaxprs.widths.spans import Spans


class Place(NamedTuple):
    """An axis of a leaf with channels of a group: those of unit i are at `positions[i]`."""

    path: str
    axis: int
    positions: Int[np.ndarray, "units places"]


@dataclass(frozen=True)
class ChannelGroup:
    """Units, each of which is kept or removed in all its places.

    Attributes:
      name: the leaf that makes the channels; others that the same leaf makes are `name#1`, ...
      size: the number of units.
      places: where they are.
      reason: why none can be removed, "" if they can: the primitive that looks at their order or
        number, and where it is.
      counts: what would see that units are gone though all their weights are zero, "" if nothing:
        such as the variance of a norm, which their distance from the mean goes into. Their order
        is free.
      sums: is a sum taken over them outside of a product, as a norm does? A module that is built
        with fewer divides that sum by another number.
    """

    name: str
    size: int
    places: tuple[Place, ...]
    reason: str = ""
    counts: str = ""
    sums: bool = False

    @property
    def prunable(self) -> bool:
        """Can units be removed, and is the rest what it is with all their weights zero?"""
        return not self.reason and not self.counts


@dataclass(frozen=True)
class ChannelGroups:
    """The groups of a function, in the order in which it makes them; a table when printed."""

    groups: tuple[ChannelGroup, ...]
    _by_name: dict[str, ChannelGroup] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {group.name: group for group in self.groups})

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, name: str) -> ChannelGroup:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """Those whose units can be removed."""
        return tuple(group for group in self.groups if group.prunable)

    def __str__(self) -> str:
        paths, note = text.shortened([group.name for group in self.groups])
        rows = [
            (path, str(group.size), str(len(group.places)), group.reason or group.counts or "-")
            for path, group in zip(paths, self.groups, strict=True)
        ]
        return str(text.Table("Channels", ["made by", "units", "axes", "kept by"], rows, (), note))


class Traced(NamedTuple):
    """A function that was traced and read.

    Attributes:
      program: what it does.
      spans: of its axes.
      leaves: the values of the params by path, the first inputs of the program.
      groups: the public ones.
      runs: the run of each group, by name.
      output_tree: of what the function returns.
    """

    program: Program
    spans: Spans
    leaves: dict[str, Value]
    groups: ChannelGroups
    runs: dict[str, int]
    output_tree: Any


@checked(apply_fn=FUNCTION)
def channel_groups(apply_fn: Callable[..., Any], params: Any, *example: Any) -> ChannelGroups:
    """The groups of channels that can be removed, or put in another order, only together.

    Read from the jaxpr: the outputs of a convolution, its bias, the norm behind it, depthwise
    convolutions, everything that a residual addition joins to it, and the inputs of what follows;
    through concatenations, splits, reshapes, heads, groups and shuffles, loops over stacked layers,
    and calls. A unit is one channel or what moves with it: a head is one unit with many positions
    in an axis of heads times width, and so is, in the same axis, an element of the width of every
    head. A primitive that is not known keeps whatever it touches, and is named in `reason`: nothing
    is guessed. The time grows with the number of equations.

    Example:
      >>> groups = sj.channel_groups(model.apply, params, x)
      >>> [(group.name, group.size) for group in groups.prunable]
      [('body/kernel', 4)]
      >>> [(place.path, place.axis) for place in groups["body/kernel"].places]
      [('body/kernel', 1), ('head/kernel', 0)]
    """
    check_examples("channel_groups", apply_fn, params, example)
    with tracing("channel_groups"):
        return traced(apply_fn, params, example).groups


def traced(apply_fn: Callable[..., Any], params: Any, example: tuple[Any, ...]) -> Traced:
    """The function read, on params and examples or their shapes."""
    arrays, call = by_paths(apply_fn, params)
    closed, shape = jax.make_jaxpr(call, return_shape=True)(arrays, *example)
    reader = Reader()
    spans = reader.spans
    leaves = {
        path: Value(fresh(spans, array.shape), frozenset([path])) for path, array in arrays.items()
    }
    rest = [v.aval.shape for v in closed.jaxpr.invars[len(arrays) :]]
    inputs = [Value(fresh(spans, own, "an input of the function"), None) for own in rest]
    program = reader.read(closed.jaxpr, closed.consts, [*leaves.values(), *inputs])
    spans.because = "an output of the function"
    for value in program.outputs:
        freeze(spans, value.axes)
    places = _places(spans, leaves)
    runs = _named(reader, places)
    probed = counted(program, spans, leaves, list(runs.values()))
    groups = tuple(_group(name, run, spans, places[run], probed) for name, run in runs.items())
    return Traced(program, spans, leaves, ChannelGroups(groups), runs, jax.tree.structure(shape))


def _group(
    name: str, run: int, spans: Spans, places: list[Place], probed: Mapping[int, tuple[str, bool]]
) -> ChannelGroup:
    size = spans.size(run)
    reason = spans.reason(run) or ("" if size > 1 else "a single channel")
    return ChannelGroup(name, size, tuple(places), reason, *probed.get(run, ("", False)))


def _named(reader: Reader, places: Container[int]) -> dict[str, int]:
    """The runs that leaves make, by the names of these, in the order of the function."""
    spans = reader.spans
    names: dict[str, int] = {}
    seen = {spans.find(Spans.ONE)}
    counts: Counter[str] = Counter()
    for span, path in reader.made:
        for run in spans.runs(span):
            if run not in seen and run in places:
                names[f"{path}#{counts[path]}" if counts[path] else path] = run
                counts[path] += 1
                seen.add(run)
    return names


def _places(spans: Spans, leaves: Mapping[str, Value]) -> dict[int, list[Place]]:
    places: dict[int, list[Place]] = {}
    for path, value in leaves.items():
        for axis, span in enumerate(value.axes):
            for run, own in held(spans, span).items():
                order = np.argsort(own.units, kind="stable")
                positions = own.positions[order].reshape(spans.size(run), -1)
                places.setdefault(run, []).append(Place(path, axis, positions))
    return places
