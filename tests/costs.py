"""What kernels cost on an AVX2 core, in ns: what tests compile hangs on no machine."""

from sparsejax.compiler.layouts.select import Cost
from sparsejax.patterns.layout import BLOCKS, MASKS, ROWS

COSTS = {
    (ROWS, 1): Cost(0.254, 0.0270, 0.0, 0.059, 0.69, 1.2),
    (ROWS, 2): Cost(0.196, 0.0260, 0.0, 0.074, 0.61, 0.62),
    (ROWS, 4): Cost(0.292, 0.0280, 0.0, 0.098, 0.74, 0.40),
    (ROWS, 8): Cost(0.336, 0.0510, 0.0, 0.180, 1.15, 0.31),
    (MASKS, 4): Cost(0.418, 0.0230, 0.0, 0.123, 0.79, 0.33),
    (BLOCKS, 2): Cost(0.112, 0.0240, 0.0, 0.067, 0.50, 0.62),
    (BLOCKS, 4): Cost(0.160, 0.0210, 0.0, 0.077, 0.50, 0.22),
    (BLOCKS, 8): Cost(0.358, 0.0210, 0.0, 0.076, 0.69, 0.20),
}
