"""Measures the layouts of every layer where it will run, and remembers the times."""

import time
import uuid
from collections.abc import Mapping

import numpy as np

from sparsejax.compiler.engine.call import load
from sparsejax.compiler.engine.lower import lower
from sparsejax.compiler.engine.program import Program
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.compiler.layouts.select import (
    Choice,
    Traits,
    candidates,
    choose,
    estimate,
    is_product,
    traits_of,
)
from sparsejax.compiler.layouts.times import SHORTEST, read_cache, write_cache
from sparsejax.compiler.layouts.times import machine as machine
from sparsejax.compiler.nodes.layer import Layer
from sparsejax.patterns import Pattern
from sparsejax.patterns.layout import Layout
from sparsejax.patterns.stacked import array_of
from sparsejax.plans.plan import Plan

BUDGET_SECONDS = 2.0  # of measuring, for one region; the model answers for the rest
TRIAL_SECONDS = 0.05  # of running the region with each layout


def choose_layouts(region: Region, plan: Plan | None, measure: bool) -> dict[Node, Choice]:
    """How each product of a region is stored: by measurement, or by the model alone."""
    products = [node for node in region.nodes if is_product(node)]
    traits = {node: traits_of(node, region) for node in products}
    layouts = {node: candidates(traits[node], _pattern(plan, node)) for node in products}
    times = _measured(region, traits, layouts) if measure else {}
    choices = {}
    for node in products:
        known = [(layout, times.get(_key(traits[node], layout))) for layout in layouts[node]]
        measured = [(layout, micros) for layout, micros in known if micros is not None]
        estimated = [(layout, estimate(traits[node], layout)) for layout in layouts[node]]
        choices[node] = choose(traits[node], measured or estimated, bool(measured))
    return choices


def _pattern(plan: Plan | None, node: Node) -> Pattern | None:
    """The pattern of the layer's leaf, which may be a turn of a loop over a stack."""
    if plan is None:
        return None
    assert isinstance(node.op, Layer)
    leaves = plan.slices(node.op.path) or plan.slices(array_of(node.op.path))
    return leaves[0].pattern if leaves else None


def _key(traits: Traits, layout: Layout) -> str:
    """What a time depends on; sparsity in steps of 1 %."""
    stored = [round(fraction, 2) for fraction in traits.stored]
    stored_as = [layout.storage.name.lower(), *layout[1:]]
    return f"{list(traits[:-1])} {stored} {stored_as}".replace(" ", "")


def _measured(
    region: Region, traits: Mapping[Node, Traits], layouts: Mapping[Node, list[Layout]]
) -> dict[str, float]:
    """Times of all layouts by their keys: those of the cache, and what is missing measured."""
    times, measured = read_cache(), {}
    end = time.perf_counter() + BUDGET_SECONDS
    for number in range(max(map(len, layouts.values()), default=0)):
        # One run measures one layout of each layer, the likeliest first.
        trial = {node: choices[min(number, len(choices) - 1)] for node, choices in layouts.items()}
        keys = {node: _key(traits[node], layout) for node, layout in trial.items()}
        if all(key in times for key in keys.values()):
            continue
        if time.perf_counter() > end:
            break
        program = lower(region, trial)
        seconds = profile(program)
        for node, key in keys.items():
            if key not in times:
                micros = round(seconds[program.steps[node]] * 1e6, 2)
                times[key] = measured[key] = max(micros, SHORTEST)
        write_cache(measured)
    return times


def profile(program: Program) -> list[float]:
    """Seconds of each step on one core, the fastest of 2 to 10 runs."""
    _, loaded = load(program, name=f"trial {uuid.uuid4()}")
    total = sum(loaded.profile(1))
    return loaded.profile(int(np.clip(TRIAL_SECONDS / max(total, 1e-9), 2, 10)))
