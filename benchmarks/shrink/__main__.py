"""What shrinking saves: parameters, multiply-adds and plain XLA time of whole networks.

    python -m benchmarks.shrink --json benchmarks/results/shrink_times.json         (5 minutes)
    python -m benchmarks.shrink --draw FILE.svg [--counts]
    python -m benchmarks.shrink --peer --json benchmarks/results/shrink.json       (10 minutes)

Each group of channels loses 30 and 50 % of its units, least L1 norm first, in multiples of 8; with
random weights, float32, one core, one image of 224 x 224 or 128 tokens. Times are of `jax.jit`.
`--counts` takes none, `--draw` draws the counts, and the page's table is written beside the JSON
file. `--peer` prunes the same networks by Torch-Pruning (`peer.py`), and also writes the page's
table beside the JSON file.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import numpy as np

import sparsejax as sj
from benchmarks import as_markdown, publish
from benchmarks.shrink import peer
from benchmarks.shrink.networks import NAMES, network
from experiments.runs.cores import cpu_name

FRACTIONS, CALLS = tuple(map(float, peer.FRACTIONS)), 10


def of_net(name: str, times: bool) -> dict[str, Any]:
    """Its counts, and times in milliseconds, whole and shrunk."""
    apply, params, x = network(name)
    start = time.perf_counter()
    groups = sj.channel_groups(apply, params, x)
    seconds = time.perf_counter() - start
    scores = sj.channel_scores(groups, params, sj.structured.channel_l1())
    versions: list[tuple[Callable, Any]] = [(apply, params)]
    for fraction in FRACTIONS:
        keep = sj.structured.best_channels(groups, scores, fraction)
        small = sj.shrink(apply, params, x, keep=keep)
        versions.append((small.apply, small.params))
    counted = [peer.counts(f, own, x) for f, own in versions]
    results = {
        "groups": len(groups.prunable),
        "units": sum(group.size for group in groups.prunable),
        "analysis_seconds": seconds,
        "fractions": [0.0, *FRACTIONS],
        **{kind: [own[kind] for own in counted] for kind in counted[0]},
    }
    return results | ({"ms": [milliseconds(f, own, x) for f, own in versions]} if times else {})


def milliseconds(apply: Callable, params: Any, x: np.ndarray) -> float:
    """The median time of a call of plain `jax.jit`."""
    run, operands = jax.jit(apply), jax.device_put((params, x))
    jax.block_until_ready(run(*operands))
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(run(*operands))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def markdown(results: Mapping[str, Any]) -> str:
    """The page's table of times, and what of the multiply-adds and of the time is left."""
    columns = ["plain `jax.jit`, ms", "whole"]
    columns += [f"{int(100 * f)} % of channels gone" for f in FRACTIONS]
    columns += ["time left", "multiply-adds left"]
    rows = []
    for name, own in results.items():
        whole, *less = own["ms"]
        left = less[-1] / whole, own["multiply_adds"][-1] / own["multiply_adds"][0]
        rows.append([name, *(f"{ms:.3g}" for ms in own["ms"]), *(f"{100 * f:.0f} %" for f in left)])
    return as_markdown(columns, rows, right=True) + "\n"


def draw(results: Mapping[str, Any], file: str) -> None:
    """Bars of what is left of the parameters and multiply-adds of each network."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "shrink", "svg.fonttype": "none"})
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, kind in zip(axes, ("parameters", "multiply_adds"), strict=True):
        for index, fraction in enumerate(FRACTIONS):
            left = [100 * own[kind][index + 1] / own[kind][0] for own in results.values()]
            places = np.arange(len(left)) + 0.4 * index - 0.2
            bars = axis.bar(places, left, 0.38, label=f"{fraction:.0%} of the channels gone")
            axis.bar_label(bars, fmt="%.0f", fontsize=5)
        axis.set_xticks(range(len(results)), results, rotation=60, ha="right", fontsize=8)
        axis.set_title(f"{kind.replace('_', '-')} left, %", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8
    )
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--draw", help="file for the picture of the counts")
    parser.add_argument("--counts", action="store_true", help="count, and take no times")
    parser.add_argument("--nets", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--peer", action="store_true", help="count beside Torch-Pruning")
    options = parser.parse_args()
    if options.peer:
        nets = peer.compared(options.nets)
        publish({"cpu": cpu_name(), "peer": peer.PEER.requirements, "nets": nets}, options.json)
        print(peer.markdown(nets))
        if options.json:
            Path(options.json).with_suffix(".md").write_text(peer.markdown(nets))
        return
    results = {name: of_net(name, not options.counts) for name in options.nets}
    publish({"cpu": cpu_name(), **results}, options.json)
    if options.json and not options.counts:
        Path(options.json).with_suffix(".md").write_text(markdown(results))
    if options.draw:
        draw(results, options.draw)


if __name__ == "__main__":
    main()
