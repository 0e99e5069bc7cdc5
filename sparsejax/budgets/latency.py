"""What layers take on this machine at each sparsity, and budgets in milliseconds made of it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax import tree
from sparsejax.budgets.budget import SPARSITIES, Budget, Losses
from sparsejax.budgets.losses import energy_lost, masks_at
from sparsejax.compiler.build import assembled, build
from sparsejax.compiler.layouts.times import machine
from sparsejax.compiler.layouts.tune import Chooser
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.split import split
from sparsejax.compiler.shelf import Shelf
from sparsejax.doors import FUNCTION, check_examples, checked
from sparsejax.patterns.stacked import take
from sparsejax.plans.leaf import Leaves, PlanLeaf, Weights
from sparsejax.plans.plan import Plan, plan
from sparsejax.plans.rules import check_rules, patterns_of

VERSION = 1
TURNS, CALLS = 5, 3  # of the whole function beside the dense one, after a call that warms it
SMOOTHED = 6  # times of a pruned layer, from which on they are smoothed


class _Made(NamedTuple):
    """Microseconds of each layer by path, and the whole function."""

    layers: dict[str, float]
    run: Callable[[], Any]


@dataclass(frozen=True)
class LatencyTable:
    """Microseconds of each layer by pattern and sparsity on one machine, through `sj.compile`.

    Attributes:
        machine: where it was measured: CPU, instruction set, version of the library.
        layers: (path, pattern) -> sparsities, ascending, and microseconds at each, never rising.
        fixed: microseconds that the function takes besides its layers, whatever is pruned.
        scale: microseconds of the function for each of a layer's: below 1 where several threads
            share the work, above where layers wait for memory that they do not when they are timed.
    """

    machine: str
    layers: Mapping[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]
    fixed: float
    scale: float

    @staticmethod
    @checked(apply_fn=FUNCTION)
    def measure(
        apply_fn: Callable,
        params: Any,
        rules: Mapping[str, Any],
        *example: Any,
        sparsities: Sequence[float] = SPARSITIES,
    ) -> "LatencyTable":
        """The table of the layers that the rules name, at these sparsities.

        The function is compiled once for each pattern and sparsity, all layers together, with
        weights pruned by magnitude; each layer is timed where it runs, and the whole function with
        the cores that the process may use, in turns with the dense one. Times of layers are kept in
        the cache of `sj.compile`, so that a second table takes seconds. A minute or two for
        MobileNet-v1; nothing else should run meanwhile.

        Args:
          apply_fn, params, example: as for `sj.compile`; the example's batch is what is timed.
          rules: as for `sj.plan`, a list of patterns where there is a choice; no sparsities.
          sparsities: in [0, 1), 0.0 among them.

        Raises:
          ValueError: a layer cannot run in the kernels, or the rules give sparsities.
        """
        check_examples("LatencyTable.measure", apply_fn, params, example)
        check_rules(rules, choices=True)
        found: dict[tuple[str, str], dict[float, float]] = {}
        sums, wholes, beside = [], [], []
        dense: Callable[[], Any] | None = None
        for number in range(max(len(patterns_of(rule)) for rule in rules.values())):
            for level in sorted(sparsities):
                given = plan(params, rules, budget=_Uniform(number, level))
                made = _made(apply_fn, pruned(params, given), example, given)
                _check_all_run(given, made)
                for leaf in given.leaves:
                    key = (leaf.path, str(leaf.pattern))
                    found.setdefault(key, {})[leaf.sparsity] = made.layers[leaf.path]
                sums.append(sum(made.layers[leaf.path] for leaf in given.leaves))
                dense = dense or made.run
                own, reference = _in_turns(made.run, dense)
                wholes.append(own)
                beside.append(reference)
        # A machine is a tenth slower for minutes: what counts is how it compares with the dense.
        steady = np.array(wholes) / np.array(beside) * np.median(beside)
        fixed, scale = _fitted(np.array(sums), steady)
        return LatencyTable(
            machine(), {key: _falling(own) for key, own in found.items()}, fixed, scale
        )

    def milliseconds_of(self, made: Plan) -> float:
        """What a plan's network takes by this table.

        Raises:
          KeyError: a leaf is not in the table with its pattern.
        """
        return (self.fixed + self.scale * sum(map(self.microseconds_of, made.leaves))) / 1e3

    def microseconds_of(self, leaf: PlanLeaf) -> float:
        """What a leaf takes at its sparsity.

        Between those that were measured it is what lies between their times, and behind the last
        of them the time there, which more zeros do not exceed.
        """
        return float(np.interp(leaf.sparsity, *self._of(leaf)))

    def sparsities_of(self, leaf: PlanLeaf) -> tuple[float, ...]:
        """Those at which the leaf was measured."""
        return self._of(leaf)[0]

    def _of(self, leaf: PlanLeaf) -> tuple[tuple[float, ...], tuple[float, ...]]:
        key = (leaf.path, str(leaf.pattern))
        if key not in self.layers:
            raise KeyError(
                f"The latency table needs {leaf.path} as {leaf.pattern}, it has "
                f"{', '.join(f'{path} as {pattern}' for path, pattern in self.layers)}; "
                "measure it with the rules of the plan."
            )
        return self.layers[key]

    def save(self, file: str | Path) -> None:
        """Write it as JSON."""
        layers = [
            [*key, list(levels), list(micros)] for key, (levels, micros) in self.layers.items()
        ]
        content = {"version": VERSION, "machine": self.machine, "fixed": self.fixed}
        Path(file).write_text(
            json.dumps(content | {"scale": self.scale, "layers": layers}, indent=1)
        )

    @staticmethod
    def load(file: str | Path, *, any_machine: bool = False) -> "LatencyTable":
        """The table that `save` wrote.

        Raises:
          ValueError: it is no such file, or from another machine and `any_machine` is False.
        """
        try:
            content = json.loads(Path(file).read_text())
            if content["version"] != VERSION:
                raise ValueError(f"it is of version {content['version']}, not {VERSION}")
            layers = {
                (str(path), str(pattern)): (tuple(map(float, levels)), tuple(map(float, micros)))
                for path, pattern, levels, micros in content["layers"]
            }
            table = LatencyTable(
                str(content["machine"]), layers, float(content["fixed"]), float(content["scale"])
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no latency table that save wrote: {error}.") from error
        if table.machine != machine() and not any_machine:
            raise ValueError(
                f"{file} was measured on {table.machine!r}, this is {machine()!r}; measure it "
                "here, or pass any_machine=True."
            )
        return table


def milliseconds(limit: float, table: LatencyTable, *, losses: Losses = energy_lost) -> Budget:
    """A budget of milliseconds of one call of the compiled function, by a table.

    Args:
      limit: milliseconds, > 0, of the example that the table was measured with.
      table: of the same layers, patterns and machine.
      losses: what each leaf loses, `energy_lost` or `output_error(calibration)`.

    Example:
      >>> rules = {"kernel": sj.Unstructured()}
      >>> levels = [0.0, 0.5, 0.9]
      >>> table = sj.budgets.LatencyTable.measure(model.apply, params, rules, x, sparsities=levels)
      >>> plan = sj.plan(params, rules, budget=sj.budgets.milliseconds(1e3, table))
      >>> table.milliseconds_of(plan) <= 1e3
      True
    """
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"milliseconds needs a number > 0, got {limit!r}.")

    def cost(leaf: PlanLeaf, num_layers: int) -> float:
        return table.scale * table.microseconds_of(leaf) / 1e3

    return Budget(limit, "ms", cost, losses, table.sparsities_of, table.fixed / 1e3)


class _Uniform(NamedTuple):
    """A budget that gives all leaves one sparsity, as far as their patterns reach it."""

    number: int  # of the alternatives, which is taken; the last where there are fewer
    level: float

    def choose(self, alternatives: Sequence[Leaves], weights: Weights) -> list[PlanLeaf]:
        leaves = [own[min(self.number, len(own) - 1)] for own in alternatives]
        if given := [leaf.path for leaf in leaves if not np.isnan(leaf.sparsity)]:
            raise ValueError(
                "LatencyTable.measure needs rules without sparsities, got one for "
                f"{', '.join(given)}; pass the pattern alone."
            )
        highest = [leaf.pattern.max_sparsity(leaf.shape) for leaf in leaves]
        pairs = zip(leaves, highest, strict=True)
        return [replace(leaf, sparsity=min(self.level, most)) for leaf, most in pairs]


def pruned(params: Any, made: Plan) -> Any:
    """The params with zeros where magnitude pruning takes weights of the plan."""

    def prune(path: str, array: Any) -> Any:
        leaves = made.slices(path)
        if not leaves:
            return array
        values = np.array(array)
        for leaf in leaves:
            own = take(leaf, values)
            own *= masks_at(leaf, np.asarray(own), [leaf.sparsity])[0]
        return values

    return tree.map_with_paths(prune, params)


def _made(apply_fn: Callable, params: Any, example: tuple, given: Plan) -> _Made:
    graph = rewrite(trace(apply_fn, params, example)[0])
    schedule = split(graph)
    chooser = Chooser(given, measure=True)
    built = build(schedule, chooser, Shelf(params))
    layers: dict[str, float] = {}
    for node in built.choices:
        batch = node.outputs[0].shape[0] if len(node.outputs[0].shape) == 4 else 1
        assert isinstance(node.op, Layer)
        micros = chooser.micros[node] * batch
        layers[node.op.path] = layers.get(node.op.path, 0.0) + micros
    inputs = [np.zeros(value.shape, value.dtype) for value in graph.inputs]
    return _Made(layers, partial(jax.jit(assembled(graph, schedule, built.calls)), *inputs))


def _in_turns(*runs: Callable[[], Any]) -> list[float]:
    """The median microseconds of each function."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(TURNS):
        for run, own in zip(runs, seconds, strict=True):
            jax.block_until_ready(run())
            for _ in range(CALLS):
                start = time.perf_counter()
                jax.block_until_ready(run())
                own.append(time.perf_counter() - start)
    return [1e6 * float(np.median(own)) for own in seconds]


def _check_all_run(given: Plan, made: _Made) -> None:
    missing = [
        leaf.path for leaf in given.leaves if not np.isfinite(made.layers.get(leaf.path, np.nan))
    ]
    if missing:
        raise ValueError(
            f"LatencyTable.measure needs layers that run in the kernels, {', '.join(missing)} "
            "do not: see `sj.compile(...).report()`, and leave them out of the rules."
        )


def _fitted(sums: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    """fixed and scale >= 0 of whole = fixed + scale * sum, with the least relative errors."""
    if np.ptp(sums) == 0:
        return max(float(np.median(wholes - sums)), 0.0), 1.0
    design = np.stack([np.ones_like(sums), sums], 1) / wholes[:, None]
    (fixed, scale), *_ = np.linalg.lstsq(design, np.ones_like(wholes), rcond=None)
    if fixed >= 0 and scale > 0:
        return float(fixed), float(scale)
    return (0.0, float(np.median(wholes / sums))) if fixed < 0 else (float(np.median(wholes)), 0.0)


def _falling(micros: Mapping[float, float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sparsities and times; a sparser layer can do what a denser one does.

    Where there are enough, those of pruned layers lie on a parabola in the density: of single times
    a budget would choose those that came out too short by chance (its nets took 6 % too long).
    """
    levels = tuple(sorted(micros))
    times = np.array([micros[level] for level in levels])
    pruned = np.array(levels) > 0.0
    if pruned.sum() >= SMOOTHED:
        density = 1.0 - np.array(levels)[pruned]
        weights = 1.0 / times[pruned]
        fitted = np.polyval(np.polyfit(density, times[pruned], 2, w=weights), density)
        times[pruned] = np.maximum(fitted, 0.5 * times[pruned])
    return levels, tuple(map(float, np.minimum.accumulate(times)))
