"""A worker process and how it is asked."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import (
    QUIET,
    CannotBeHadError,
    Engine,
    python_of,
)

ROOT = Path(__file__).parents[2]
OWN = ("ours", "jax", "jax shifted")  # the ways of `own_worker`


def bound_to(cores: Sequence[int]) -> list[str]:
    """The beginning of a command that runs on these cores; none where the system has no such."""
    if shutil.which("taskset") is None:
        print("There is no taskset: the engines run on whatever cores they like.", file=sys.stderr)
        return []
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


class Worker:
    """A process that answers lines of JSON; pinned before its first instruction."""

    def __init__(self, command: Sequence[str], cores: Sequence[int], errors: Path):
        flag = f"--xla_cpu_multi_thread_eigen={str(len(cores) > 1).lower()}"
        self._errors = errors
        with errors.open("w") as log:
            self._process = subprocess.Popen(
                [*bound_to(cores), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, **QUIET, "XLA_FLAGS": flag},
            )

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """The answer to an order.

        Raises:
            CannotBeHadError: when the process has ended; with its last words.
        """
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            words = self._errors.read_text().strip().splitlines() or ["no message"]
            raise CannotBeHadError(f"it ended with: {words[-1][:200]}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start(engine: Engine | str, cores: Sequence[int], logs: Path) -> Worker:
    """The process of an engine, or of one of our own ways; what it prints goes to a file in `logs`.

    Raises:
        CannotBeHadError: when the engine cannot be installed.
    """
    if isinstance(engine, Engine):
        name = engine.name
        command = [str(python_of(engine)), str(Path(__file__).with_name("worker.py")), name]
    else:
        name = engine
        command = [sys.executable, "-m", "benchmarks.peers.own_worker", name]
    return Worker(command, cores, logs / f"{name}.log")
