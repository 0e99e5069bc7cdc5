"""Which regions XLA runs faster: the whole function is timed with them and without."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from sparsejax.compiler.build import Built, build
from sparsejax.compiler.court import CLEAR, Court, Group, Option, signature
from sparsejax.compiler.graph.graph import Graph, Node, Region
from sparsejax.compiler.layouts.select import is_product
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.control import While, graphs, strong
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.regions.split import split
from sparsejax.compiler.reports.verdict import Verdict
from sparsejax.compiler.shelf import Shelf
from sparsejax.jaxprs.calls import functions_of

MARGIN = 1.05  # by which XLA must be faster, so that noise decides nothing
NO_ZEROS = 0.97  # the same for a function without zeros to skip, which is worth keeping if faster
LARGE = 0.15  # of the time of all regions, from which on XLA is tried for equal layers
MOST_OUTLIERS = 3  # kinds of them
TURNS = 50  # of a loop that may be endless
WORTH_A_TRIAL = 1.3  # times faster by itself in XLA


def judge(court: Court, chooser: Chooser, shelf: Shelf) -> tuple[Court, Verdict]:
    """Where the fastest of what can be built is timed, and what of it goes back to XLA.

    Args:
        court: where what was built is timed.
        chooser: that chose the layouts, with the times of all nodes.
        shelf: of what is packed.
    """
    graph = court.graph
    if not may_run(graph):
        return court, hand_back_in_turns(court, chooser)
    apart = outliers(court, chooser)
    if not apart:
        return court, hand_back(court, chooser)
    graph.reasons |= dict.fromkeys(apart, "XLA runs it faster")
    schedule = split(graph, apart)
    built = build(schedule, chooser, shelf)
    other = Court(court.source, graph, schedule, built, chooser)
    now, without = court.compare(court.but(()), other.but(()))
    if without * MARGIN < now:
        return other, hand_back(other, chooser)
    for node in apart:
        del graph.reasons[node]
    split(graph)
    return court, hand_back(court, chooser)


def hand_back(court: Court, chooser: Chooser) -> Verdict:
    """The regions that are faster in XLA, on this machine and where they stand.

    The function is compared with what jax.jit makes of it; then without one kind of region after
    the other, those that take longest first. The times are kept in the cache.

    Args:
        court: where what was built is timed.
        chooser: that chose the layouts, with the times of all nodes.
    """
    groups = _groups(court.built, chooser)
    if not groups:
        return Verdict({})
    fast, jitted = court.compare(court.but(()), court.as_it_was())
    best, clear = fast, len(groups) == 1 and jitted > CLEAR * fast
    untried, given = [] if clear else groups, {}  # type: tuple[list[Group], dict[Region, str]]
    while untried and not court.is_over():
        group, *untried = untried
        now, without = court.compare(court.but(tuple(given)), court.but((*given, *group)))
        best = min(best, now)
        if without * MARGIN < now:
            reason = f"with it in XLA the function is {now / without:.2f}x faster"
            best, given = without, given | dict.fromkeys(group, reason)
    if jitted * (MARGIN if _skips_zeros(court.built.calls) else NO_ZEROS) < best:
        reason = f"jax.jit of the whole function is {fast / jitted:.2f}x faster"
        if fast < jitted * MARGIN:
            reason = (
                "there are no zeros to skip, and jax.jit of the whole function is about as fast"
            )
        given = {region: reason for group in groups for region in group}
        return Verdict(given, jitted, jitted, len(untried), jitted, plain=True)
    return Verdict(given, best, jitted, len(untried), court.outside(tuple(given)))


def hand_back_in_turns(court: Court, chooser: Chooser) -> Verdict:
    """The regions of loops that may be endless, where a turn is faster without them.

    Args:
        court: of a function that nobody may call with inputs that are made up.
        chooser: that chose the layouts.
    """
    given: dict[Region, str] = {}
    nodes = (node for each in graphs(court.graph) for node in each.nodes)
    for loop in (node.op for node in nodes if isinstance(node.op, While)):
        body, shared = loop.bodies[1], loop.num_shared[1]
        own = tuple(part for part in body.schedule if isinstance(part, Region))
        if not (own and may_run(body)):
            continue
        turn = Court(court.source, body, body.schedule, court.built, chooser)
        times = turn.compare(*(_many_turns(turn.but(given), shared) for given in ((), own)))
        if times[1] * (MARGIN if _skips_zeros(own) else NO_ZEROS) < times[0]:
            reason = f"with it in XLA a turn of its loop is {times[0] / times[1]:.2f}x faster"
            given |= dict.fromkeys(own, reason)
    return Verdict(given)


def _many_turns(turn: Option, shared: int) -> Option:
    """So many that the time of a call is little of it."""

    def run(*inputs: jax.Array) -> list[jax.Array]:
        again = lambda _, carried: strong(turn.function(*inputs[:shared], *carried))
        return jax.lax.fori_loop(0, TURNS, again, strong(inputs[shared:]))

    return Option(f"{turn.name}, {TURNS} turns", run)


def outliers(court: Court, chooser: Chooser) -> list[Node]:
    """The layers that take much of the time and less of it in XLA, by themselves.

    Equal ones are looked at together. To leave them out of the regions may pay, or not.

    Args:
        court: where they are timed.
        chooser: that has the times of all nodes.
    """
    kinds: dict[str, list[Node]] = {}
    micros: dict[Node, float] = {}
    for region in court.built.calls:
        for node in region.nodes:
            batch = 1 if region.rows else node.outputs[0].shape[0]
            micros[node] = np.nan_to_num(chooser.micros.get(node, 0.0)) * batch
            kinds.setdefault(chooser.keys.get(node, ""), []).append(node)
    took = {key: sum(micros[node] for node in nodes) for key, nodes in kinds.items()}
    large = sorted(kinds, key=took.__getitem__, reverse=True)[:MOST_OUTLIERS]
    return [
        node
        for key in large
        if took[key] > LARGE * sum(took.values())
        if court.alone(kinds[key][0]) * WORTH_A_TRIAL < micros[kinds[key][0]]
        for node in kinds[key]
    ]


def _skips_zeros(regions: Iterable[Region]) -> bool:
    """Is any weight of a product in the regions zero?"""
    products = (n for region in regions for n in region.nodes if is_product(n))
    return any(not np.all(node.op.weights) for node in products)  # type: ignore[attr-defined]


def _groups(built: Built, chooser: Chooser) -> list[Group]:
    """The equal regions together; those that take longest first."""
    groups: dict[tuple, list[Region]] = {}
    for region in built.calls:
        groups.setdefault(signature(region, chooser), []).append(region)

    def took(group: Group) -> float:
        return sum(chooser.micros.get(node, 0.0) for region in group for node in region.nodes)

    return sorted(map(tuple, groups.values()), key=took, reverse=True)


def may_run(graph: Graph) -> bool:
    """May compile call the function, with inputs that it makes up? They might end no loop."""
    config: Any = jax.config
    keys = any(jax.dtypes.issubdtype(v.dtype, jax.dtypes.extended) for v in graph.inputs)
    effects = any(node.op.effects for node in graph.nodes)
    endless = any(_may_be_endless(node) for each in graphs(graph) for node in each.nodes)
    debugs = config.jax_debug_nans or config.jax_debug_infs or config.jax_disable_jit
    return not (keys or effects or endless or debugs) and jax.default_backend() == "cpu"


def _may_be_endless(node: Node) -> bool:
    if not isinstance(node.op, Primitive):
        return isinstance(node.op, While)
    return any(e.primitive.name == "while" for e in _with_inner([node.op.equation]))


def _with_inner(equations: Iterable[Any]) -> Iterator[Any]:
    """Equations, and those of the functions that they call."""
    for equation in equations:
        yield equation
        for body in functions_of(equation):
            yield from _with_inner(body.eqns)
