"""The same networks by Torch-Pruning, in an environment of its own under build/peers.

Both sides remove 30 and 50 % of each group, least L1 norm first, and what stays of it is rounded
down to a multiple of 8, as Torch-Pruning does; what would have none stays whole. All heads and all
groups of convolutions stay, and become narrower. Counts are of trainable weights and of products
with them; times are CPU seconds of the analysis, on one thread.
"""

import json
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sparsejax as sj
from benchmarks import as_markdown
from benchmarks.peers.environments import Engine, python_of
from benchmarks.shrink.networks import network
from sparsejax.structured import ChannelGroup

FRACTIONS = ("0.3", "0.5")
PEER = Engine("torch_pruning", ("torch==2.13.0", "torch-pruning==1.6.1"))
TIMEOUT_S = 120
MULTIPLE = 8
SIDES = ("sparsejax", "Torch-Pruning")


def are_heads(group: ChannelGroup, groups: Iterable[ChannelGroup]) -> bool:
    """Are the units heads or groups of a convolution: neighbours that other units lie across?"""
    if group.name.endswith("query/kernel"):  # in linen they have an axis of their own
        return True
    path, axis, positions = group.places[0]
    if positions.shape[1] == 1 or positions[0, 1] - positions[0, 0] > 1:
        return False
    others = [place for other in groups if other is not group for place in other.places]
    here = [place.positions for place in others if (place.path, place.axis) == (path, axis)]
    return any(np.isin(own, positions).any() for own in here)


def kept(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Which units stay when a fraction goes and the rest is rounded down; all if that is none."""
    count = int(len(scores) * (1 - fraction)) // MULTIPLE * MULTIPLE
    ranked = np.argsort(scores, kind="stable")
    return np.isin(np.arange(len(scores)), ranked[-count:])  # [-0:] is all


def counts(apply: Any, variables: Any, x: np.ndarray) -> dict[str, int]:
    """Trainable parameters and multiply-adds."""
    trained = variables.get("params", variables) if isinstance(variables, dict) else variables
    return {
        "parameters": sum(map(np.size, jax.tree.leaves(trained))),
        "multiply_adds": sum(sj.multiply_adds(apply, variables, x).values()),
    }


def ours(name: str) -> dict[str, Any]:
    """What `shrink` makes of a network, in the stages of `torch_side/worker.py`."""
    apply, variables, x = network(name)
    start = time.process_time()
    groups = sj.channel_groups(apply, variables, x)
    seconds = time.process_time() - start
    scores = sj.channel_scores(groups, variables, sj.structured.channel_l1())
    scores = {n: own for n, own in scores.items() if not are_heads(groups[n], groups.prunable)}
    found: dict[str, Any] = {"whole": counts(apply, variables, x), "analysis_seconds": seconds}
    for fraction in FRACTIONS:
        keep = {group: kept(own, float(fraction)) for group, own in scores.items()}
        small = sj.shrink(apply, variables, x, keep=keep)
        found[fraction] = counts(small.apply, small.params, x)
    return found


def theirs(name: str) -> dict[str, Any]:
    """What Torch-Pruning makes of it; a stage that is not over in time says so."""
    worker = Path(__file__).parent / "torch_side" / "worker.py"
    command = [str(python_of(PEER)), "-W", "ignore", str(worker), name, *FRACTIONS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        return stages(done.stdout, (done.stderr.strip().splitlines() or ["no message"])[-1])
    except subprocess.TimeoutExpired as late:
        return stages((late.stdout or b"").decode(), f"not over after {TIMEOUT_S} s")


def stages(lines: str, end: str) -> dict[str, Any]:
    """The stages that a worker told, and for those that it did not, how it ended."""
    found: dict[str, Any] = {}
    for line in lines.splitlines():
        found |= json.loads(line)
    missing = {"failed": end}
    return {name: found.get(name, missing) for name in ("whole", "analysis_seconds", *FRACTIONS)}


def compared(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Both sides of each network.

    Raises:
      ValueError: the whole networks are not the same.
    """
    results = {}
    for name in names:
        results[name] = dict(zip(SIDES, (ours(name), theirs(name)), strict=True))
        one, other = (side["whole"] for side in results[name].values())
        if one != other:
            raise ValueError(f"{name}: both sides need the same network, got {one} and {other}.")
    return results


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the page, and the failures below it."""
    heads = [
        f"{int(100 * float(f))} % of channels gone, {side}" for f in FRACTIONS for side in SIDES
    ]
    columns = ["parameters, multiply-adds (millions)", "whole", *heads]
    columns += [f"analysis, {side}" for side in SIDES]
    rows: list[list[str]] = []
    failures: list[str] = []
    for name, sides in results.items():
        rows.append([name, _cell(sides[SIDES[0]]["whole"])])
        for stage in (*FRACTIONS, "analysis_seconds"):
            rows[-1] += [_cell(sides[side][stage]) for side in SIDES]
        failures += [f"- {name}, {words}" for words in _failures(sides)]
    return "\n".join([as_markdown(columns, rows, right=True), "", *failures]) + "\n"


def _cell(found: Any) -> str:
    if isinstance(found, float):
        return f"{found:.2f} s"
    if "failed" in found:
        return "fails"
    return f"{found['parameters'] / 1e6:.2f}, {found['multiply_adds'] / 1e6:,.0f}"


def _failures(sides: Mapping[str, Any]) -> list[str]:
    """Each message of a side once."""
    found = [
        f"{side}: `{own['failed']}`"
        for side, stages in sides.items()
        for own in stages.values()
        if isinstance(own, Mapping) and "failed" in own
    ]
    return list(dict.fromkeys(found))
