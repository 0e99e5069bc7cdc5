"""Measures the layouts of every distinct layer where it will run, and remembers the times."""

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.layouts import calibrate
from sparsejax.compiler.layouts.alike import NO_TIME, Alike, described, distinct, filled
from sparsejax.compiler.layouts.profile import profile
from sparsejax.compiler.layouts.select import (
    FEW_PIXELS,
    Choice,
    Costs,
    is_product,
    layer_key,
)
from sparsejax.compiler.layouts.times import SHORTEST, UNKNOWN, Sample, read_cache, write_cache
from sparsejax.compiler.layouts.zeros import Seen
from sparsejax.ops._ffi import instruction_set
from sparsejax.patterns.layout import COLUMNS, Layout
from sparsejax.plans.plan import Plan

PROMISING = 1.2  # times what the instruction set in use takes, from which on none is tuned
MARGIN = 1.03  # by which another must be faster
BUDGET_SECONDS = 4.0  # of CPU time to measure for one compile; later ones go on
MOST_MEASURED = 3  # how often the two fastest layouts are, once or twice a compile
# What the fastest layout is tried with, too, one after the other.
VARIATIONS: dict[str, tuple[int, ...]] = {"tile": (1, 2, 4, 7), "chunk_cols": (64, 128, 256)}


_Times = Mapping[str, Sample]
_Best = tuple[list[Alike], dict[str, Sample]]


class Held(NamedTuple):
    """How other numbers of rows have packed a region.

    Attributes:
        layouts: of its products.
        isa: the instruction set whose kernels run it, "" for that in use.
    """

    layouts: Mapping[Node, Layout]
    isa: str


NOTHING_HELD = Held({}, "")


@dataclass
class Chooser:
    """How the products of a function's regions are stored: by measurement, or by the model alone.

    Attributes:
        plan: that the weights were trained with, or None.
        measure: measure rather than estimate?
        seen: the function's values on an example, where zeros among them are to be skipped.
        spent: CPU seconds that went into measuring.
        num_left: layouts that are worth a measurement and got none.
        micros: the time of every node of the regions that were measured, of one image.
        keys: what each of these nodes is, however it is stored.
        isas: the instruction sets of regions that run faster with another than the one in use.
    """

    plan: Plan | None
    measure: bool
    seen: Seen = field(default_factory=Seen)
    spent: float = 0.0
    num_left: int = 0
    micros: dict[Node, float] = field(default_factory=dict)
    keys: dict[Node, str] = field(default_factory=dict)
    isas: dict[Region, str] = field(default_factory=dict)

    def __call__(self, region: Region, held: Held = NOTHING_HELD) -> dict[Node, Choice]:
        """A choice for each product of a region, what is held where it is about as fast."""
        costs = calibrate.costs()
        layers = distinct(region, self.plan, costs, held.layouts, self.seen)
        times: dict[str, Sample] = {}
        if self.measure:
            known = read_cache()
            own = _of_set(known, held.isa) if held.isa else known
            times = self._measure(region, layers, costs, self._trials(region, own, held.isa))
            self.isas |= {region: held.isa} if held.isa else {}
            for isa in other_sets() if not held.layouts else []:
                layers, times = self._with(isa, region, (layers, times), costs, known)
        note = f"; {self.isas[region]} is faster" if region in self.isas else ""
        choices: dict[Node, Choice] = {}
        for layer in layers:
            choice = layer.choice(costs, times)
            choices |= dict.fromkeys(layer.nodes, replace(choice, reason=choice.reason + note))
        return choices

    def _trials(self, region: Region, times: dict[str, Sample], isa: str) -> "_Trials":
        return _Trials(region, times, isa, self.seen.operands(region))

    def _measure(
        self, region: Region, layers: list[Alike], costs: Costs, trials: "_Trials"
    ) -> dict[str, Sample]:
        """Measure what is missing, the likeliest first, and note the times of all nodes."""
        start, times = time.thread_time() - self.spent, trials.times
        for number, trial in enumerate(_rounds(layers, costs, times)):
            if number and self.spent > BUDGET_SECONDS:  # the first is of the best estimates
                self.num_left += sum(len(layer.missing(times)) for layer in layers)
                break
            trials.run(trial)
            self.spent = time.thread_time() - start
        self.keys |= {n: layer_key(layer.traits) for layer in layers for n in layer.nodes}
        self.keys |= {n: described(n, region) for n in region.nodes if not is_product(n)}
        self.micros |= _micros(region, layers, costs, times)
        return times

    def _with(self, isa: str, region: Region, best: _Best, costs: Costs, known: _Times) -> _Best:
        """What is best with another instruction set, if that is faster for the region."""
        layers = distinct(region, self.plan, costs, {}, self.seen)
        trials = self._trials(region, _of_set(known, isa), isa)
        before = self.micros.copy()
        took = sum(before[node] for node in region.nodes)
        first = _trial({layer: layer.layouts[:1] for layer in layers})
        if not all(key in trials.times for key in first.keys.values()):
            trials.run(first)
        if sum(_micros(region, layers, costs, trials.times).values()) > PROMISING * took:
            return best
        times = self._measure(region, layers, costs, trials)
        if sum(self.micros[node] for node in region.nodes) * MARGIN < took:
            self.isas[region] = isa
            return layers, times
        self.micros = before
        return best


def other_sets() -> list[str]:
    """The instruction sets that are tried, too: AVX2, where AVX-512 was not forced.

    An AMD Zen 4, which computes AVX-512 in two halves, runs some products faster without.
    """
    forced = os.environ.get("SPARSEJAX_ISA")
    return ["avx2"] if instruction_set() == "avx512" and not forced else []


def _of_set(times: _Times, isa: str) -> dict[str, Sample]:
    """The times that were measured with an instruction set."""
    begin = f"{isa} "
    return {key.removeprefix(begin): s for key, s in times.items() if key.startswith(begin)}


def _micros(region: Region, layers: list[Alike], costs: Costs, times: _Times) -> dict[Node, float]:
    """The times of all nodes of a region, its products stored as is fastest."""
    found = {n: times.get(described(n, region), NO_TIME).micros for n in region.nodes}
    for layer in layers:
        found |= dict.fromkeys(layer.nodes, layer.choice(costs, times).microseconds)
    return found


@dataclass
class _Trial:
    """One run of the region: a layout for each product, and which of them are filled up."""

    layouts: dict[Node, Layout]
    keys: dict[Node, str]
    dense: bool = False


def _rounds(layers: list[Alike], costs: Costs, times: Mapping[str, Sample]) -> Iterator[_Trial]:
    """The trials in the order of their worth, each decided when those before it have run."""
    yield from _missing(layers, times)
    if any(layer.dense_key(costs) not in times for layer in layers):
        yield _dense(layers, costs)
    for name, values in VARIATIONS.items():
        for layer in layers:
            # Of few the engine knows what to take; what is packed is to be taken as it is.
            if layer.traits.pixels > FEW_PIXELS and layer.held is None:
                best = layer.measured(times)[0]
                if name == "tile" and best.storage == COLUMNS:
                    continue  # it has none
                varied = [best._replace(**{name: each}) for each in values]  # type: ignore[arg-type]
                layer.layouts = list(dict.fromkeys([*layer.layouts, *varied]))
        yield from _missing(layers, times)
    for place in (0, 1):
        fastest = [layer.measured(times)[: place + 1][-1] for layer in layers]
        counts = [times[a.key(b)].repeats for a, b in zip(layers, fastest, strict=True)]
        if min(counts, default=MOST_MEASURED) < MOST_MEASURED:
            yield _trial({layer: [best] for layer, best in zip(layers, fastest, strict=True)})


def _missing(layers: list[Alike], times: Mapping[str, Sample]) -> Iterator[_Trial]:
    """Trials until all layouts are measured; of equal layers each has another one."""
    while any(layer.missing(times) for layer in layers):
        yield _trial({layer: layer.missing(times) or layer.measured(times) for layer in layers})


def _trial(wanted: Mapping[Alike, list[Layout]]) -> _Trial:
    trial = _Trial({}, {})
    for layer, layouts in wanted.items():
        for number, node in enumerate(layer.nodes):
            layout = layouts[min(number, len(layouts) - 1)]
            trial.layouts[node], trial.keys[node] = layout, layer.key(layout)
    return trial


def _dense(layers: list[Alike], costs: Costs) -> _Trial:
    layouts = {node: layer.dense(costs) for layer in layers for node in layer.nodes}
    keys = {node: layer.dense_key(costs) for layer in layers for node in layer.nodes}
    return _Trial(layouts, keys, dense=True)


class _Trials:
    """Runs trials, and adds what they measure to the times, here and in the cache."""

    def __init__(
        self, region: Region, times: dict[str, Sample], isa: str, operands: list[np.ndarray]
    ):
        self.region, self.times, self.isa, self.operands = region, times, isa, operands

    def run(self, trial: _Trial) -> None:
        region, own = (filled(self.region, trial.layouts)) if trial.dense else (self.region, {})
        program = lower(region, {own.get(node, node): y for node, y in trial.layouts.items()})
        seconds = dict.fromkeys(region.nodes, 0.0)
        measured = profile(program, isa=self.isa, operands=self.operands)
        for step, node in program.owners.items():
            seconds[node] += measured[step]
        found: dict[str, float] = {}
        for node in self.region.nodes:
            key = trial.keys.get(node) or described(node, self.region)
            micros = max(round(seconds[own.get(node, node)] * 1e6, 2), SHORTEST)
            found[key] = min(found.get(key, math.inf), micros)
        counted = {
            key: self.times.get(key, UNKNOWN).and_then(micros) for key, micros in found.items()
        }
        self.times |= counted
        begin = f"{self.isa} " * bool(self.isa)
        write_cache({begin + key: sample for key, sample in counted.items()})
