"""Files of every form that other readers than Python run, and what they must compute.

As a program it runs them by a command that takes FILE INPUT... and prints the outputs of one item.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import sparsejax as sj
from tests.compiler.files.functions import CALLS

TOLERANCE = 1e-6  # of the largest output


class Case(NamedTuple):
    """A file, the files of its inputs, and the outputs one behind the other."""

    file: Path
    inputs: list[Path]
    expected: np.ndarray


def cases(folder: Path) -> Iterator[Case]:
    """Writes the files below a folder."""
    for name, (function, params, inputs) in CALLS.items():
        for values in ("float32", "float16"):
            x = inputs(1)
            path = folder / f"{name.replace(' ', '_')}.{values}"
            sj.save(sj.compile(function, params, *x, tune=False), path, values=values)
            paths = [path.with_suffix(f".{values}.{i}") for i in range(len(jax.tree.leaves(x)))]
            for array, own in zip(jax.tree.leaves(x), paths, strict=True):
                own.write_bytes(np.asarray(array, np.float32).tobytes())
            outputs = jax.tree.leaves(sj.load(path)(*x))
            floats = [np.ravel(y).astype(np.float32) for y in outputs]
            yield Case(path, paths, np.concatenate(floats))


def difference(command: Sequence[str], case: Case) -> float:
    """By how much what a command computes differs, of the largest output."""
    done = subprocess.run([*command, case.file, *case.inputs], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    actual = np.frombuffer(done.stdout, np.float32)
    assert actual.shape == case.expected.shape, f"{len(actual)} floats"
    return float(np.abs(actual - case.expected).max() / np.abs(case.expected).max())


def main(command: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            found = difference(command, case)
            print(f"{case.file.name}: {found:.1e}")
            assert found <= TOLERANCE


if __name__ == "__main__":
    main(sys.argv[1:])
