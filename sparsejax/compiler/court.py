"""Functions timed against each other on this machine, in turns, and what was found kept."""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.build import Built, assembled
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.graph.interpret import with_weights
from sparsejax.compiler.layouts.times import UNKNOWN, read_cache, write_cache
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.control import graphs
from sparsejax.compiler.passes.trace import Traced

CPU_SECONDS = 10.0  # for compiling and running what is compared; with jax.jit it always is
RACE_SECONDS = 0.8  # of running two functions in turns, where the case is not clear
CLEAR = 1.5  # times the other's time: no more runs are needed, nor another look
MOST_RACED = 3  # how often what is no clear case is timed, once a compile
TURN = 3  # calls in a row, of which the first finds the other's data in the cache

Group = tuple[Region, ...]


class Option(NamedTuple):
    """A function of the inputs, and what its time is kept under."""

    name: str
    function: Callable


class Court:
    """Times a function with some of its regions in XLA, and remembers it in the cache."""

    def __init__(
        self,
        source: Traced,
        graph: Graph,
        schedule: list[Region | Node],
        built: Built,
        chooser: Chooser,
    ):
        self.source, self.graph, self.schedule, self.built = source, graph, schedule, built
        self.seen = chooser.seen
        self.start = time.process_time()
        self.times = read_cache()
        inner = [body.schedule for body in graphs(graph) if body is not graph]
        parts = [
            str(signature(p, chooser) if isinstance(p, Region) else f"{p.op} {_shapes(p)}")
            for p in itertools.chain(schedule, *inner)
        ]
        shapes = [f"{value.shape} {value.dtype}" for value in graph.inputs]
        self.name = _digest("\n".join([*shapes, *parts]))

    def is_over(self) -> bool:
        """Is the time over?"""
        return time.process_time() - self.start > CPU_SECONDS

    def but(self, given: Group) -> Option:
        """The function with these regions in XLA."""
        regions = list(self.built.calls)
        name = f"function {self.name} but {sorted(regions.index(region) for region in given)}"
        calls = {region: call for region, call in self.built.calls.items() if region not in given}
        return Option(name, assembled(self.graph, self.schedule, calls))

    def as_it_was(self) -> Option:
        """The function that was traced."""
        name = f"function {_digest(str(self.source.closed.jaxpr))} as it was"
        return Option(name, plain(self.source))

    def compare(self, one: Option, other: Option) -> tuple[float, float]:
        """Microseconds of a call of each."""
        names = one.name, other.name
        if self._is_open(names):
            with jax.ensure_compile_time_eval():  # inside jit, too
                inputs = list(map(self._input, self.graph.inputs))
                runs = [with_weights(option.function, inputs) for option in (one, other)]
                self._note(dict(zip(names, race(*runs), strict=True)))
        first, second = (self.times[name].micros for name in names)
        return first, second

    def alone(self, node: Node) -> float:
        """Microseconds of a node by itself in XLA."""
        name = f"node {node.op} {_shapes(node)}"
        if name not in self.times:
            with jax.ensure_compile_time_eval():
                inputs = list(map(self._input, node.inputs))
                self._note({name: race(with_weights(node.op.evaluate, inputs))[0]})
        return self.times[name].micros

    def outside(self, given: Group) -> float:
        """Microseconds of a call that are not spent in custom calls; nan where these are in loops.

        Args:
            given: regions that are in XLA.
        """
        kept = [r for r in self.schedule if isinstance(r, Region) and r not in given]
        if len(kept) < len(self.built.calls) - len(given):
            return math.nan
        own = self.but(given).name
        whole = self.times[own].micros
        if not kept or len(kept) == len(self.schedule):
            return 0.0 if kept else whole
        key = f"{own}, custom calls alone"
        if key not in self.times:
            with jax.ensure_compile_time_eval():
                inputs = [self._input(value) for region in kept for value in region.inputs]
                self._note({key: race(with_weights(partial(self._alone, kept), inputs))[0]})
        return max(whole - self.times[key].micros, 0.0)

    def _alone(self, kept: Sequence[Region], *inputs: jax.Array) -> list[jax.Array]:
        """The outputs of regions, from inputs for all of them."""
        rest = iter(inputs)
        calls = [self.built.calls[r](*itertools.islice(rest, len(r.inputs))) for r in kept]
        return [array for outputs in calls for array in outputs]

    def _input(self, value: Value) -> jax.Array:
        """What is seen there on an example, or what is made up."""
        found = self.seen.values.get(value)
        return _made_up(value) if found is None else jnp.asarray(found)

    def _note(self, seconds: Mapping[str, float]) -> None:
        found = {
            key: self.times.get(key, UNKNOWN).and_then(1e6 * each) for key, each in seconds.items()
        }
        self.times |= found
        write_cache(found)

    def _is_open(self, names: Sequence[str]) -> bool:
        """Was one of them never timed, or both seldom and to about the same?"""
        known = [self.times.get(name, UNKNOWN) for name in names]
        raced, micros = min(each.repeats for each in known), [each.micros for each in known]
        return raced == 0 or (raced < MOST_RACED and max(micros) < CLEAR * min(micros))


def plain(source: Traced) -> Callable:
    """The function of the inputs, as it was traced."""
    known = [value.constant for value in source.known]
    closed = source.closed
    return lambda *inputs: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *known, *inputs)


def signature(region: Region, chooser: Chooser) -> tuple:
    """What equal regions have in common."""
    return tuple(chooser.keys.get(node, "") for node in region.nodes)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _shapes(node: Node) -> list[tuple[int, ...]]:
    return [value.shape for value in (*node.inputs, *node.outputs)]


def race(*runs: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """The median seconds of a call of each function, which take turns.

    Not of the fastest: with several threads calls are seldom as fast as that, of one more than of
    the other.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    end = clock() + RACE_SECONDS
    for number in itertools.count(1):
        for run, own in zip(runs, seconds, strict=True):
            for _ in range(TURN):
                start = clock()
                run()
                own.append(clock() - start)
        over, looked_at = clock() > end, number > 1 and number & (number - 1) == 0
        if over or looked_at:
            middle = [float(np.median(own)) for own in seconds]
            if over or max(middle) > CLEAR * min(middle):
                return middle
    raise AssertionError


def _made_up(value: Value) -> jax.Array:
    """An input of that type: noise, or zeros where it is no float."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.zeros(value.shape, value.dtype)
    noise = np.random.default_rng(0).standard_normal(value.shape, np.float32)
    return jnp.asarray(noise, value.dtype)
