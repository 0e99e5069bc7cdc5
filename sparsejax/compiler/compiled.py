"""The function that `compile` returns: what is made for each shape, kept and run."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.extend import core

from sparsejax.compiler.build import assembled, build
from sparsejax.compiler.court import Court, plain
from sparsejax.compiler.frozen import (
    check_alike,
    fingerprint,
    frozen,
    same_numbers,
    type_of,
)
from sparsejax.compiler.graph.graph import Graph, Node, Region
from sparsejax.compiler.hand_back import judge, may_run
from sparsejax.compiler.layouts.select import Choice
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.layouts.zeros import Seen, seen
from sparsejax.compiler.nodes.control import graphs
from sparsejax.compiler.passes.laws import apply_laws
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import Traced, constants, lift, trace, traced
from sparsejax.compiler.precedents import Precedents, alike
from sparsejax.compiler.regions.fusion import fuse
from sparsejax.compiler.regions.profile import Profile
from sparsejax.compiler.regions.split import split
from sparsejax.compiler.reports.doubts import in_training, left_in_xla
from sparsejax.compiler.reports.report import CompileReport, report
from sparsejax.compiler.reports.verdict import Verdict
from sparsejax.compiler.shelf import Packed, Shelf
from sparsejax.plans.plan import Plan

MAX_SHAPES = 64  # that a function keeps its programs for; those that were called last


class Options(NamedTuple):
    """How a function is to be compiled; `compile` says what each means.

    Attributes:
        data: example arrays whose zeros are counted, in a tuple; None where none are to be skipped.
    """

    plan: Plan | None
    tune: bool
    real_arithmetic: bool
    data: tuple | None = None


class Version(NamedTuple):
    """What was made for one set of input shapes."""

    run: Callable
    traced: Traced
    graph: Graph
    schedule: list[Region | Node]
    packed: dict[Region, Packed]
    choices: dict[Node, Choice]
    report: CompileReport
    doubts: list[str]


class CompiledFunction:
    """A function of the inputs alone that runs on packed weights; made by `sj.compile`.

    It is an ordinary JAX function: `jax.jit`, `jax.vmap`, `jax.grad` (for the inputs) and
    `jax.shard_map` work. Other shapes are traced again, as in `jax.jit`, and other batch sizes
    share the packed weights; it keeps programs for the 64 shapes that were called last. Any number
    of threads may call it, and none waits for a shape that another compiles. It pickles when
    apply_fn does.
    """

    def __init__(self, apply_fn: Callable, params: Any, options: Options):
        self._apply_fn = apply_fn
        self._params = frozen(params)
        self._options = options
        self._versions: OrderedDict[Any, Version] = OrderedDict()
        self._traces: Mapping[Any, Traced] = {}
        self._shelf = Shelf(self._params)
        self._making: dict[Any, threading.RLock] = {}
        self._precedents = Precedents()
        self._example: tuple = ()
        self._fingerprint = ""
        self._lock = threading.Lock()  # of all dicts; nothing long is done under it

    def __call__(self, *args: Any) -> Any:
        """What apply_fn(params, *args) returns, with the params that it was compiled with."""
        leaves, treedef = jax.tree.flatten(args)
        made = self._version(leaves, treedef)
        return jax.tree.unflatten(made.traced.output_tree, made.run(*leaves))

    def with_params(self, params: Any) -> "CompiledFunction":
        """The same function with other weights, such as those of the next epoch.

        They are packed anew, and so are the layouts chosen, as zeros may have moved; the times that
        were measured are kept, and nothing is traced again. This function stays what it is.

        Args:
            params: of the structure, shapes and dtypes of those that it was compiled with.

        Raises:
            ValueError: when these are others.

        Example:
            >>> fast = sj.compile(model.apply, params, x, tune=False)
            >>> later = fast.with_params(jax.tree.map(lambda leaf: leaf / 2, params))
            >>> later(x).shape == fast(x).shape
            True
        """
        check_alike(self._params, params)
        later = CompiledFunction(self._apply_fn, params, self._options)
        if same_numbers(self._params, params):
            later._fingerprint = self._fingerprint
            with self._lock:
                later._traces = {key: made.traced for key, made in self._versions.items()}
        return later._with_example(self._example)

    def report(self, *, fusion: bool | Literal["measured"] = False) -> CompileReport:
        """What was chosen for each layer, on the shapes that compile was given.

        Args:
            fusion: add the blocks in which DNNFusion (PLDI 2021) would run the traced function, for
                comparison with the regions that are one call each here; "measured" times those
                pairs that its table leaves to a measurement, which else stay apart.
        """
        made = self._first().report
        if not fusion:
            return made
        graph, _ = trace(self._apply_fn, self._params, self._example)
        apply_laws(graph, real=self._options.real_arithmetic)
        profile = Profile(graph) if fusion == "measured" else None
        return dataclasses.replace(made, fusion=fuse(graph, profitable=profile))

    def _with_example(self, example: tuple) -> "CompiledFunction":
        """Itself, compiled for its first shapes."""
        self._example = example
        self._first()
        return self

    def _first(self) -> Version:
        leaves, treedef = jax.tree.flatten(self._example)
        return self._version(leaves, treedef)

    def _for_batch(self, batch: int) -> Version:
        """What is made for so many items of the example, by the layouts that are known."""
        sized = lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype)
        other = CompiledFunction(self._apply_fn, self._params, self._options._replace(tune=False))
        other._shelf = self._shelf
        return other._with_example(jax.tree.map(sized, self._example))._first()

    def _version(self, leaves: list, treedef: Any) -> Version:
        types = tuple(map(type_of, leaves))
        key = (treedef, tuple((t.shape, t.dtype, t.weak_type) for t in types))
        with self._lock:
            if key in self._versions:
                self._versions.move_to_end(key)
                return self._versions[key]
            making = self._making.setdefault(key, threading.RLock())
        with making:  # others wait for this shape alone
            if key not in self._versions:
                made = self._make(key, jax.tree.unflatten(treedef, types))
                self._keep(key, made)
            return self._versions[key]

    def _keep(self, key: Any, made: Version) -> None:
        """Keep what was made; the shape that was not called for longest is forgotten."""
        with self._lock:
            self._versions[key] = made
            self._making.pop(key, None)
            while len(self._versions) > MAX_SHAPES:
                self._versions.popitem(last=False)

    def _make(self, key: Any, args: tuple) -> Version:
        known = self._traces.get(key)
        if known is None:
            known = traced(self._apply_fn, self._params, args)
            self._check_unchanged(known.closed)
        known = known._replace(known=constants(self._params))
        graph = lift(known.closed, known.known)
        doubts = in_training(graph)
        laws = apply_laws(graph, real=self._options.real_arithmetic)
        graph = rewrite(graph)
        self._shelf.share(node for each in graphs(graph) for node in each.nodes)
        schedule = split(graph)
        chooser = Chooser(self._options.plan, self._options.tune, self._seen(graph, args))
        built = build(schedule, chooser, self._shelf)
        verdict = Verdict({})
        if self._options.tune:
            court = Court(known, graph, schedule, built, chooser)
            tree, types = key
            sizes = tree, alike([t[0] for t in types]), tuple(t[1:] for t in types)
            court, verdict = self._precedents(sizes, court, chooser, self._shelf, judge)
            schedule, built = court.schedule, court.built
        calls = {r: call for r, call in built.calls.items() if r not in verdict.given}
        packed = {region: built.packed[region] for region in calls}
        run = jax.jit(plain(known) if verdict.plain else assembled(graph, schedule, calls))
        made = report(graph, schedule, built.choices, chooser, verdict)
        made = dataclasses.replace(made, laws=dict(laws))
        doubts += left_in_xla(graph, made, self._options.plan)
        return Version(run, self._kept(known), graph, schedule, packed, built.choices, made, doubts)

    def _seen(self, graph: Graph, args: tuple) -> Seen:
        """The graph's values on the example, where zeros among them are to be skipped."""
        leaves = jax.tree.leaves(self._options.data)
        alike = list(map(type_of, leaves)) == jax.tree.leaves(args)
        if not (leaves and alike and may_run(graph)):
            return Seen()
        return seen(graph, leaves)

    def _kept(self, trace: Traced) -> Traced:
        """The trace without the params, and with what the function closes over as it is now.

        Of arrays that all shapes close over there is one copy.
        """
        jax_or_numpy = (
            c if isinstance(c, jax.Array) else np.asarray(c) for c in trace.closed.consts
        )
        owned = map(frozen, jax_or_numpy)
        consts = [self._shelf.array(c) if isinstance(c, np.ndarray) else c for c in owned]
        return trace._replace(closed=core.ClosedJaxpr(trace.closed.jaxpr, consts), known=[])

    def _check_unchanged(self, closed: core.ClosedJaxpr) -> None:
        """Raise unless the function is, on the first example, what it was: else two would mix."""
        if not self._fingerprint:
            self._fingerprint = fingerprint(closed)
            return
        first = traced(self._apply_fn, self._params, self._example)
        if fingerprint(first.closed) != self._fingerprint:
            raise ValueError(
                "a compiled function needs an apply_fn that stays as it was, but on the first "
                "example it is another now, for other shapes: an array, a number or a module that "
                "it closes over has changed; pass what changes in params, and compile again."
            )

    def __reduce__(self) -> tuple:
        """Restored, it is compiled again; the times of its layers come from the cache."""
        params = jax.device_get(self._params)
        return compile_function, (self._apply_fn, params, self._example, self._options)


def compile_function(
    apply_fn: Callable, params: Any, example: tuple, options: Options
) -> CompiledFunction:
    """As compile, with everything checked."""
    return CompiledFunction(apply_fn, params, options)._with_example(example)
