"""What the demo measures of its trained networks: zeros, the compiled outputs, latency."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sparsejax as sj
from experiments.demo import latency
from experiments.runs.timing import TOLERANCE
from experiments.settings.train import Network, TrainState

BATCH = 500


def check_compiled(
    network: Network,
    states: dict[str, TrainState],
    images: np.ndarray,
    labels: np.ndarray,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Compile the sparse network and compare it with the dense evaluation of the same weights.

    Returns:
        What was found, and the classes that the dense and the compiled sparse network predict.
    """
    dense, sparse = ((states[name].params, states[name].statistics) for name in ("dense", "sparse"))
    compiled = sj.compile(network.apply, sparse, images[:BATCH])
    evaluate, fast = jax.jit(sj.accelerate(network.apply)), jax.jit(compiled)
    ours, theirs, of_dense = (
        np.concatenate([np.asarray(f(images[i : i + BATCH])) for i in range(0, len(labels), BATCH)])
        for f in (fast, functools.partial(evaluate, sparse), functools.partial(evaluate, dense))
    )
    result = {
        "relative_error": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        "accuracy": float((ours.argmax(-1) == labels).mean()),
        "same_predictions": int((ours.argmax(-1) == theirs.argmax(-1)).sum()),
        "images": len(labels),
        "layers": compiled.report().to_dict(),
    }
    say(
        f"compiled: test accuracy {result['accuracy']:.2%}, largest difference "
        f"{result['relative_error']:.1e} of the largest logit"
    )
    if not result["relative_error"] <= TOLERANCE:
        raise SystemExit(
            f"The compiled network differs by more than {TOLERANCE}: nothing is timed."
        )
    return result, {"dense": of_dense.argmax(-1), "sparse": ours.argmax(-1)}


def measure_latency(
    folder: Path, shape: dict[str, Any], dense: Any, sparse: Any, *, smoke: bool
) -> dict[str, Any]:
    """The tables of `experiments.demo.latency`, from a process pinned to one core.

    Args:
        folder: for the exchanged files.
        shape: the options of `experiments.demo.latency.build`.
        dense, sparse: (params, statistics) of the two trained networks.
        smoke: few repeats and the trained network alone.
    """
    inputs, output = folder / "variables.npz", folder / "latency.json"
    latency.save_variables(inputs, shape, dense=dense, sparse=sparse)
    command = [sys.executable, "-m", latency.__name__, "--variables", str(inputs)]
    subprocess.run([*command, "--json", str(output), *["--smoke"] * smoke], check=True)
    return json.loads(output.read_text())
