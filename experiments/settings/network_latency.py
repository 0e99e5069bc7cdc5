"""Times of a compiled MobileNet-v1, dense and in blocks, from a process pinned to one core.

python -m experiments.settings.network_latency '{"sparsity": 0.3, "block_rows": 4, "rounds": 15}'
"""

import functools
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen, shifted_depthwise
from experiments.models.variables import prune, random_statistics
from experiments.runs.table import Job
from experiments.runs.timing import TOLERANCE, relative_error, time_ms


@dataclass(frozen=True)
class NetworkLatency:
    """MobileNet-v1 1.0/224, batch 1, its 1x1 convolutions pruned in blocks, against dense ones."""

    headline: ClassVar[str] = "speedup"

    sparsity: float
    block_rows: int

    @property
    def label(self) -> str:
        """Sparsity and block."""
        return f"mobilenet_v1-224-{100 * self.sparsity:g}-{self.block_rows}x1"

    def run(self, job: Job) -> dict[str, Any]:
        """Median ms, `speedup` over our dense engine and over XLA (with shifted depthwise)."""
        options = {**asdict(self), "rounds": 2 if job.smoke else 25, "smoke": job.smoke}
        command = [
            sys.executable,
            "-m",
            "experiments.settings.network_latency",
            json.dumps(options),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        return json.loads(done.stdout.splitlines()[-1])


def measure(setting: NetworkLatency, rounds: int, smoke: bool) -> dict[str, float]:
    """The result of a setting, in this process; all ways are called in turn."""
    side, width = (32, 0.25) if smoke else (224, 1.0)
    x = jax.random.normal(jax.random.key(1), (1, side, side, 3))
    model = MobileNetV1Linen(width=width)
    dense = random_statistics(jax.jit(model.init)(jax.random.key(0), x))
    pattern = sj.Block(setting.block_rows, 1)
    sparse = prune(dense, pattern, setting.sparsity)
    single = prune(dense, sj.Unstructured(), setting.sparsity)
    apply = functools.partial(model.apply, train=False)
    shifted = jax.jit(MobileNetV1Linen(width=width, depthwise=shifted_depthwise).apply)
    compiled = lambda weights: functools.partial(jax.jit(sj.compile(apply, weights, x)), x)
    calls = {
        "xla": functools.partial(shifted, sparse, x),
        "dense": compiled(dense),
        "sparse": compiled(sparse),
        "single": compiled(single),
    }
    error = relative_error(calls["sparse"](), calls["xla"]())
    if not error <= TOLERANCE:
        raise SystemExit(f"The compiled network differs by {error}: nothing is timed.")
    times = time_ms(calls, rounds)
    return {
        **{f"{name}_ms": ms for name, ms in times.items()},
        "speedup": times["dense"] / times["sparse"],
        "over_xla": times["xla"] / times["sparse"],
        "over_single_weights": times["single"] / times["sparse"],
        "sparsity": setting.sparsity,
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    num_rounds, is_smoke = given.pop("rounds"), given.pop("smoke", False)
    print(json.dumps(measure(NetworkLatency(**given), num_rounds, is_smoke)))
