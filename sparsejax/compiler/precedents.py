"""What was found for one shape of a function holds for shapes of about its size."""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from sparsejax.compiler.build import build
from sparsejax.compiler.court import Court
from sparsejax.compiler.graph.graph import Graph, Node
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.control import graphs
from sparsejax.compiler.regions.split import split
from sparsejax.compiler.reports.verdict import Verdict
from sparsejax.compiler.shelf import Shelf
from sparsejax.memory import give_memory_back

# Of all functions one is timed at a time: others would disturb it, and each takes memory for the
# weights that XLA is to multiply by.
_ALONE = threading.RLock()


class Precedent(NamedTuple):
    """What was found, by the places of nodes and regions.

    Attributes:
        kinds: of all nodes; where they are others, nothing is known.
        apart: nodes that stayed out of the regions, with the reason.
        given: regions that went back to XLA, with the reason.
        verdict: on that shape, without its regions, which it would keep alive.
    """

    kinds: list[str]
    apart: dict[int, str]
    given: dict[int, str]
    verdict: Verdict


class Precedents:
    """Of one function: it is judged once for all shapes that are `alike`."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Precedent] = {}

    def __call__(
        self,
        key: Hashable,
        court: Court,
        chooser: Chooser,
        shelf: Shelf,
        judge: Callable[[Court, Chooser, Shelf], tuple[Court, Verdict]],
    ) -> tuple[Court, Verdict]:
        """What is built in the end, and what of it goes back to XLA.

        Args:
            key: what shapes that are alike have in common.
            court: where what was built can be timed.
            chooser: that chose the layouts.
            shelf: of what is packed.
            judge: times it, where nothing is known.
        """
        with _ALONE:
            known, kinds = self._found.get(key), _kinds(court.graph)
            if known is not None and known.kinds == kinds:
                return _as_before(known, court, chooser, shelf)
            nodes, before = _nodes(court.graph), dict(court.graph.reasons)
            court, verdict = judge(court, chooser, shelf)
            reasons, calls = court.graph.reasons, list(court.built.calls)
            apart = {i: reasons[n] for i, n in enumerate(nodes) if n in reasons and n not in before}
            given = {calls.index(region): reason for region, reason in verdict.given.items()}
            self._found[key] = Precedent(kinds, apart, given, verdict._replace(given={}))
            give_memory_back()
            return court, verdict


def alike(shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Equal for shapes whose sides lie between the same powers of two: 5 to 8, 9 to 16."""
    return tuple(tuple((side - 1).bit_length() if side else -1 for side in s) for s in shapes)


def _as_before(
    known: Precedent, court: Court, chooser: Chooser, shelf: Shelf
) -> tuple[Court, Verdict]:
    graph = court.graph
    if known.apart:
        nodes = _nodes(graph)
        graph.reasons |= {nodes[place]: reason for place, reason in known.apart.items()}
        schedule = split(graph, [nodes[place] for place in known.apart])
        built = build(schedule, chooser, shelf)
        court = Court(court.source, graph, schedule, built, chooser)
    calls = list(court.built.calls)
    given = {calls[place]: reason for place, reason in known.given.items()}
    return court, known.verdict._replace(given=given)


def _nodes(graph: Graph) -> list[Node]:
    return [node for each in graphs(graph) for node in each.nodes]


def _kinds(graph: Graph) -> list[str]:
    return [node.op.name for node in _nodes(graph)]
