"""Seconds of each step of a program."""

import uuid
from collections.abc import Sequence

import numpy as np

from sparsejax.compiler.engine.call import load
from sparsejax.compiler.engine.program import Program

TRIAL_SECONDS = 0.05  # of running a program once it is known how long it takes


def profile(
    program: Program, runs: int = 0, isa: str = "", operands: Sequence[np.ndarray] = ()
) -> list[float]:
    """Seconds of each step on one core, the fastest of so many runs, or of 2 to 10 that fit.

    Args:
        program: to run.
        runs: how often, 0 for as often as fits.
        isa: the instruction set of the kernels, "" for that in use.
        operands: flat, of one image; zeros without any.
    """
    _, loaded = load(program, name=f"trial {uuid.uuid4()}", isa=isa)
    total = sum(loaded.profile(1, operands))
    return loaded.profile(runs or int(np.clip(TRIAL_SECONDS / max(total, 1e-9), 2, 10)), operands)
