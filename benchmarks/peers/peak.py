"""What one core of this machine reaches at most, in GFLOP/s."""

import subprocess
from functools import cache
from pathlib import Path

from benchmarks.peers.environments import FOLDER

SOURCE = Path(__file__).with_name("peak.cc")


@cache
def peak() -> dict[str, float]:
    """Multiply-adds alone, and with a vector load for each: the bound of single weights."""
    program = FOLDER / "peak"
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-O3", "-march=native", "-ffp-contract=fast", str(SOURCE), "-o", str(program)]
    subprocess.run(command, check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    alone, loading = map(float, output.split())
    return {"fma gflops": alone, "fma with loads gflops": loading}
