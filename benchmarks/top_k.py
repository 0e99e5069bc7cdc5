"""The mask of the k largest scores, exact, against jax.lax.top_k and sorting.

    taskset -c 0 python -m benchmarks.top_k --json top_k.json

The same array each time: 25 M float32 magnitudes of normal weights, and the same with every score
equal to many others (rounded to 1/64), of which the largest tenth is kept. Target: 3x faster than
the best of the others. Then the scores sharded over 1, 2 and 4 forced host devices, with the
collectives in the compiled program: all-reduces of a few counts, nothing of the scores' size (the
devices share the machine's cores). Times are medians in milliseconds of calls that alternate, by
the wall and as CPU time.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import publish
from experiments.runs.timing import measure
from sparsejax import top_k

SHAPE = (5_000, 5_000)


def scores_of(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    scores = np.abs(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return np.round(scores * 64) / 64 if kind == "tied" else scores


def compare(kind: str, repeats: int, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """Times of three ways to the mask of the largest tenth; `exact` says who counts tied scores."""
    scores = jnp.asarray(scores_of(kind, shape))
    k = scores.size // 10

    def select(scores: jax.Array) -> jax.Array:
        _, indices = jax.lax.top_k(scores.ravel(), k)
        return jnp.zeros(scores.size, bool).at[indices].set(True).reshape(shape)

    ways = {
        "top_k_mask": jax.jit(lambda scores: top_k.top_k_mask(scores, k)),
        "jax.lax.top_k": jax.jit(select),
        "jnp.sort": jax.jit(lambda scores: scores >= jnp.sort(scores, axis=None)[-k]),
    }
    masks = {name: np.asarray(way(scores)) for name, way in ways.items()}
    assert (masks["top_k_mask"] == masks["jax.lax.top_k"]).all()
    times = measure({name: lambda way=way: way(scores) for name, way in ways.items()}, repeats)
    peers = [time["cpu ms"] for name, time in times.items() if name != "top_k_mask"]
    return {
        "scores": f"{scores.size} {kind}",
        **times,
        "exact": {name: int(mask.sum()) == k for name, mask in masks.items()},
        "times faster, by CPU time": min(peers) / times["top_k_mask"]["cpu ms"],
    }


def on_devices(repeats: int) -> dict[str, Any]:
    """The time on all devices, with rows sharded, and the collectives of the program."""
    count = len(jax.devices())
    mesh = jax.make_mesh((count,), ("devices",), (AxisType.Auto,))
    sharding = NamedSharding(mesh, P("devices", None))
    scores = jax.device_put(scores_of("distinct", SHAPE), sharding)
    best = jax.jit(lambda s: top_k.top_k_mask(s, s.size // 10)).lower(scores).compile()
    collective = r"= (\S+) ((?:all-|collective-|reduce-scatter)[\w-]*)\("
    found = re.findall(collective, best.as_text())
    times = measure({"top_k_mask": lambda: best(scores)}, repeats)
    collectives = sorted({f"{name} of {shape}" for shape, name in found})
    return {"devices": count, **times["top_k_mask"], "collectives": collectives}


def in_subprocess(devices: int, repeats: int) -> dict[str, Any]:
    """`on_devices` in a process of its own: the number of host devices is fixed at start."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.top_k", "--devices-only"]
    output = subprocess.run(
        [*command, "--repeats", str(repeats)],
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--devices-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices_only:
        print(json.dumps(on_devices(options.repeats)))
        return
    results = {
        "compared": [compare(kind, options.repeats) for kind in ("distinct", "tied")],
        "devices": [in_subprocess(count, options.repeats) for count in (1, 2, 4)],
    }
    publish(results, options.json)


if __name__ == "__main__":
    main()
