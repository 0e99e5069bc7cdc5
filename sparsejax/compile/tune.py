"""Measures the layouts of every layer where it will run, and remembers the times on disk.

The cache is a JSON file: $SPARSEJAX_CACHE, or sparsejax/times.json in the user's cache folder.
"""

import json
import os
import platform
import time
import uuid
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sparsejax.compile.engine import load
from sparsejax.compile.graph import Node, Region
from sparsejax.compile.lower import Layout, Lowered, lower
from sparsejax.compile.select import (
    Choice,
    Traits,
    candidates,
    choose,
    estimate,
    is_product,
    traits_of,
)
from sparsejax.ops._ffi import instruction_set
from sparsejax.patterns import Pattern
from sparsejax.plan import Plan

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
    leaf = plan.get(node.op.path) if plan is not None else None  # type: ignore[union-attr]
    return None if leaf is None else leaf.pattern


def _key(traits: Traits, layout: Layout) -> str:
    """What a time depends on; sparsity in steps of 1 %."""
    stored = [round(share, 2) for share in traits.stored]
    return f"{list(traits[:-1])} {stored} {list(layout)}".replace(" ", "")


def _measured(
    region: Region, traits: Mapping[Node, Traits], layouts: Mapping[Node, list[Layout]]
) -> dict[str, float]:
    """Times of all layouts by their keys: those of the cache, and what is missing measured."""
    times = read_cache()
    end = time.perf_counter() + BUDGET_SECONDS
    for number in range(max(map(len, layouts.values()), default=0)):
        # One run measures one layout of each layer, the likeliest first.
        trial = {node: choices[min(number, len(choices) - 1)] for node, choices in layouts.items()}
        keys = {node: _key(traits[node], layout) for node, layout in trial.items()}
        if all(key in times for key in keys.values()):
            continue
        if time.perf_counter() > end:
            break
        lowered = lower(region, trial)
        seconds = profile(lowered)
        for node, key in keys.items():
            times.setdefault(key, round(seconds[lowered.steps[node]] * 1e6, 2))
        write_cache(times)
    return times


def profile(lowered: Lowered) -> list[float]:
    """Seconds of each step on one core, the fastest of 2 to 10 runs."""
    _, program = load(lowered, name=f"trial {uuid.uuid4()}")
    total = sum(program.profile(1))
    return program.profile(int(np.clip(TRIAL_SECONDS / total, 2, 10)))


def cache_path() -> Path:
    """Where the times are kept."""
    if "SPARSEJAX_CACHE" in os.environ:
        return Path(os.environ["SPARSEJAX_CACHE"])
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sparsejax" / "times.json"


@cache
def machine() -> str:
    """What makes times comparable: CPU, instruction set, version of the library."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model")]
        model = " ".join(dict.fromkeys(names)) or model
    except OSError:  # not Linux
        pass
    return f"{model} {instruction_set()} sparsejax {version('sparsejax')}"


def read_cache() -> dict[str, float]:
    """The times that were measured on this machine; a damaged or foreign file gives a warning."""
    path = cache_path()
    try:
        content = json.loads(path.read_text())
        if content["machine"] != machine():
            raise ValueError(f"it is from {content['machine']!r}, this is {machine()!r}")
        return {str(key): float(value) for key, value in content["times"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(f"compile ignores its cache {path}: {error}", stacklevel=2)
        return {}


def write_cache(times: Mapping[str, float]) -> None:
    """Replaces the file at once, so that two processes never see half of one."""
    path = cache_path()
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"machine": machine(), "times": dict(times)}))
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"compile cannot write its cache {path}: {error}", stacklevel=2)
