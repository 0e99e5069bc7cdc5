"""Times of a recurrent network's product, dense and packed, from a process pinned to one core.

    python -m experiments.settings.product_latency '{"hidden": 512, "sparsity": 0.9, ...}'

What is compared is called in turn, so that all see the same machine; medians are reported, and
ratios of medians.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from experiments.runs.table import Job
from experiments.runs.timing import time_ms

STEPS = 50  # products in a call, each of the state that the one before left


@dataclass(frozen=True)
class ProductLatency:
    """The recurrent product of a GRU, random weights in the pattern, against dense and CSR."""

    headline: ClassVar[str] = "speedup"

    hidden: int
    """The matrix is 3 hidden x hidden."""
    sparsity: float
    block_rows: int
    block_cols: int = 16
    kept_rows: int | None = None
    batch: int = 1

    @property
    def label(self) -> str:
        """Size, sparsity and block."""
        block = f"{self.block_rows}x{self.block_cols}"
        kept = f"-{self.kept_rows}_rows" if self.kept_rows else ""
        percent = f"{100 * self.sparsity:g}"
        return f"product-{self.hidden}-batch_{self.batch}-{percent}-{block}{kept}"

    def run(self, job: Job) -> dict[str, Any]:
        """Median microseconds of a product, and `speedup` = dense / packed."""
        options = {**asdict(self), "rounds": 2 if job.smoke else 200}
        command = [
            sys.executable,
            "-m",
            "experiments.settings.product_latency",
            json.dumps(options),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        return json.loads(done.stdout.splitlines()[-1])


def measure(setting: ProductLatency, rounds: int) -> dict[str, float]:
    """The result of a setting, in this process."""
    pattern = sj.BlockColumnRow(setting.block_rows, setting.block_cols, setting.kept_rows)
    shape = (setting.hidden, 3 * setting.hidden)
    weights = np.random.default_rng(0).standard_normal(shape, np.float32) / setting.hidden**0.5
    scores = jnp.abs(weights)
    own = np.asarray(pattern.mask(scores, setting.sparsity))
    free = np.asarray(sj.Unstructured().mask(scores, setting.sparsity))
    matrices = {
        "dense": np.where(own, weights, 0),
        "packed": pattern.pack(weights, own),
        "csr": sj.Unstructured().pack(weights, own),
        "unstructured_csr": sj.Unstructured().pack(weights, free),
    }
    matrices = jax.tree.map(jnp.asarray, matrices)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((setting.batch, setting.hidden)), "f4")
    calls = {name: partial(_recurrence, matrix, x) for name, matrix in matrices.items()}
    np.testing.assert_allclose(calls["packed"](), calls["dense"](), rtol=1e-3, atol=1e-3)
    times = time_ms(calls, rounds)
    return {
        **{f"{name}_us": 1e3 * ms / STEPS for name, ms in times.items()},
        "speedup": times["dense"] / times["packed"],
        "over_csr": times["csr"] / times["packed"],
        "over_unstructured_csr": times["unstructured_csr"] / times["packed"],
        **{f"{name}_bytes": num_bytes(matrices[name]) for name in ("packed", "csr", "dense")},
    }


@jax.jit
def _recurrence(matrix: Any, state: jax.Array) -> jax.Array:
    """What a chain of products leaves of a state."""

    def step(_: Any, state: jax.Array) -> jax.Array:
        y = state @ matrix if isinstance(matrix, jax.Array) else sj.spmm(matrix, state)
        return jnp.tanh(y[:, : state.shape[1]])

    return jax.lax.fori_loop(0, STEPS, step, state)


def num_bytes(matrix: Any) -> int:
    """Of all arrays of a matrix, packed or not."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(matrix))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    num_rounds = given.pop("rounds")
    print(json.dumps(measure(ProductLatency(**given), num_rounds)))
