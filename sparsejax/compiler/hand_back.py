"""Which regions XLA runs faster: the whole function is timed with them and without."""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from sparsejax.compiler.build import Built, assembled
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.layouts.times import UNKNOWN, read_cache, write_cache
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.control import While, graphs
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.passes.trace import Traced
from sparsejax.compiler.reports.verdict import Verdict

MARGIN = 1.05  # by which XLA must be faster, so that noise decides nothing
CPU_SECONDS = 10.0  # for compiling and running what is compared; with jax.jit it always is
RACE_SECONDS = 0.3  # of running two functions in turns
CLEAR = 1.5  # times the other's time: no more runs are needed, nor another look
MOST_RACED = 3  # how often what is no clear case is timed, once a compile
TURN = 3  # calls in a row, of which the first finds the other's data in the cache

Group = tuple[Region, ...]
PLAIN = None  # in place of a group: the function as it was


def hand_back(
    source: Traced,
    graph: Graph,
    schedule: Sequence[Region | Node],
    built: Built,
    chooser: Chooser,
) -> Verdict:
    """The regions that are faster in XLA, on this machine and where they stand.

    The function is compared with what jax.jit makes of it; then without one kind of region after
    the other, those that take longest first. The times are kept in the cache.

    Args:
        source: the function as it was traced.
        graph, schedule: what was built of it.
        built: the calls of all regions.
        chooser: that chose their layouts, with the times of their nodes.
    """
    groups = _groups(built, chooser)
    if not groups or not _may_run(graph):
        return Verdict({})
    court = _Court(source, graph, schedule, built, chooser)
    fast, jitted = court.compare((), PLAIN)
    best, clear = fast, len(groups) == 1 and jitted > CLEAR * fast
    untried, given = [] if clear else groups, {}  # type: tuple[list[Group], dict[Region, str]]
    while untried and not court.is_over():
        group, *untried = untried
        now, without = court.compare(tuple(given), (*given, *group))
        best = min(best, now)
        if without * MARGIN < now:
            reason = f"with it in XLA the function is {now / without:.2f}x faster"
            best, given = without, given | dict.fromkeys(group, reason)
    if jitted * MARGIN < best:
        reason = f"jax.jit of the whole function is {fast / jitted:.2f}x faster"
        given = {region: reason for group in groups for region in group}
        return Verdict(given, jitted, jitted, len(untried), jitted, plain=True)
    return Verdict(given, best, jitted, len(untried), court.outside(tuple(given)))


def plain(source: Traced) -> Callable:
    """The function of the inputs, as it was traced."""
    known = [value.constant for value in source.known]
    closed = source.closed
    return lambda *inputs: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *known, *inputs)


def _groups(built: Built, chooser: Chooser) -> list[Group]:
    """The equal regions together; those that take longest first."""
    groups: dict[tuple, list[Region]] = {}
    for region in built.calls:
        groups.setdefault(_signature(region, chooser), []).append(region)

    def took(group: Group) -> float:
        return sum(chooser.micros.get(node, 0.0) for region in group for node in region.nodes)

    return sorted(map(tuple, groups.values()), key=took, reverse=True)


def _signature(region: Region, chooser: Chooser) -> tuple:
    return tuple(chooser.keys.get(node, "") for node in region.nodes)


def _may_run(graph: Graph) -> bool:
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
        for value in equation.params.values():
            for body in value if isinstance(value, tuple | list) else (value,):
                if isinstance(body, core.Jaxpr | core.ClosedJaxpr):
                    yield from _with_inner(body.eqns)


class _Court:
    """Times the function with some of its regions in XLA, and remembers it in the cache."""

    def __init__(
        self,
        source: Traced,
        graph: Graph,
        schedule: Sequence[Region | Node],
        built: Built,
        chooser: Chooser,
    ):
        self.source, self.graph, self.schedule, self.built = source, graph, schedule, built
        self.start = time.process_time()
        self.times = read_cache()
        inner = [body.schedule for body in graphs(graph) if body is not graph]
        parts = [
            str(_signature(p, chooser) if isinstance(p, Region) else f"{p.op} {_shapes(p)}")
            for p in itertools.chain(schedule, *inner)
        ]
        shapes = [f"{value.shape} {value.dtype}" for value in graph.inputs]
        self.name = _digest("\n".join([*shapes, *parts]))

    def is_over(self) -> bool:
        """Is the time over?"""
        return time.process_time() - self.start > CPU_SECONDS

    def compare(self, one: Group, other: Group | None) -> tuple[float, float]:
        """Microseconds with the regions of one in XLA, and with those of the other."""
        keys = [self._key(one), self._key(other)]
        if self._is_open(keys):
            with jax.ensure_compile_time_eval():  # inside jit, too
                inputs = [_made_up(value) for value in self.graph.inputs]
                runs = [self._run(group, inputs) for group in (one, other)]
                self._note(dict(zip(keys, race(*runs), strict=True)))
        first, second = (self.times[key].micros for key in keys)
        return first, second

    def outside(self, given: Group) -> float:
        """Microseconds of a call that are not spent in custom calls; nan where these are in loops.

        Args:
            given: regions that are in XLA.
        """
        kept = [r for r in self.schedule if isinstance(r, Region) and r not in given]
        if len(kept) < len(self.built.calls) - len(given):
            return math.nan
        whole = self.times[self._key(given)].micros
        if not kept or len(kept) == len(self.schedule):
            return 0.0 if kept else whole
        key = f"{self._key(given)}, custom calls alone"
        if key not in self.times:
            inputs = [_made_up(value) for region in kept for value in region.inputs]
            with jax.ensure_compile_time_eval():
                self._note({key: race(with_weights(partial(self._alone, kept), inputs))[0]})
        return max(whole - self.times[key].micros, 0.0)

    def _alone(self, kept: Sequence[Region], *inputs: jax.Array) -> list[jax.Array]:
        """The outputs of regions, from inputs for all of them."""
        rest = iter(inputs)
        calls = [self.built.calls[r](*itertools.islice(rest, len(r.inputs))) for r in kept]
        return [array for outputs in calls for array in outputs]

    def _note(self, seconds: Mapping[str, float]) -> None:
        found = {
            key: self.times.get(key, UNKNOWN).and_then(1e6 * each) for key, each in seconds.items()
        }
        self.times |= found
        write_cache(found)

    def _is_open(self, keys: Sequence[str]) -> bool:
        """Was one of them never timed, or both seldom and to about the same?"""
        known = [self.times.get(key, UNKNOWN) for key in keys]
        raced, micros = min(each.repeats for each in known), [each.micros for each in known]
        return raced == 0 or (raced < MOST_RACED and max(micros) < CLEAR * min(micros))

    def _key(self, given: Group | None) -> str:
        if given is PLAIN:
            return f"function {_digest(str(self.source.closed.jaxpr))} as it was"
        regions = list(self.built.calls)
        return f"function {self.name} but {sorted(regions.index(region) for region in given)}"

    def _run(self, given: Group | None, inputs: Sequence[jax.Array]) -> Callable[[], Any]:
        if given is PLAIN:
            return with_weights(plain(self.source), inputs)
        calls = {region: call for region, call in self.built.calls.items() if region not in given}
        return with_weights(assembled(self.graph, self.schedule, calls), inputs)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _shapes(node: Node) -> list[tuple[int, ...]]:
    return [value.shape for value in (*node.inputs, *node.outputs)]


def with_weights(function: Callable, inputs: Sequence[jax.Array]) -> Callable[[], Any]:
    """The jitted function of these inputs, its constants handed in as a user's params are.

    As constants of the program they would be copied into it, and take long to compile.
    """
    closed = jax.make_jaxpr(function)(*inputs)
    weights = [jnp.asarray(array) for array in closed.consts]
    run = jax.jit(lambda weights, inputs: jax.core.eval_jaxpr(closed.jaxpr, weights, *inputs))
    return lambda: jax.block_until_ready(run(weights, inputs))


def race(*runs: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The seconds of the fastest call of each function, which take turns."""
    best = [math.inf] * len(runs)
    for run in runs:
        run()
    end = clock() + RACE_SECONDS
    for number in itertools.count():
        for place, run in enumerate(runs):
            for _ in range(TURN):
                start = clock()
                run()
                best[place] = min(best[place], clock() - start)
        if (number and max(best) > CLEAR * min(best)) or clock() > end:
            return best
    raise AssertionError


def _made_up(value: Value) -> jax.Array:
    """An input of that type: noise, or zeros where it is no float."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.zeros(value.shape, value.dtype)
    noise = np.random.default_rng(0).standard_normal(value.shape, np.float32)
    return jnp.asarray(noise, value.dtype)
