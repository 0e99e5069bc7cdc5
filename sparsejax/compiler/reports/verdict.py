"""What goes back to XLA because it is faster there."""

import math
from typing import NamedTuple

from sparsejax.compiler.graph.graph import Region


class Verdict(NamedTuple):
    """What was found when the whole function was timed.

    Attributes:
        given: the regions that go back to XLA, with the reason.
        micros: of one call as it is then, nan where nothing was timed.
        jit_micros: of what jax.jit makes of the function as it was.
        untried: kinds of region that there was no time to try in XLA one by one.
        outside: microseconds of a call that no custom call takes.
        plain: is the function to run as it was?
    """

    given: dict[Region, str]
    micros: float = math.nan
    jit_micros: float = math.nan
    untried: int = 0
    outside: float = math.nan
    plain: bool = False
