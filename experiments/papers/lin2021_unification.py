"""Micro-structured unification: blocks that share one magnitude, beside blocks that are zero.

Lin, Jiang, Wang, Xu, Wang, Liu, Li, "Efficient Micro-Structured Weight Unification and Pruning for
Neural Network Compression", 2021, arXiv:2106.08301. Its tables are not known to us: the rows below
compare at equal storage.

    python -m experiments run lin2021_unification

A dense training of 1,500 steps, then 1,000 on the 1x1 convolutions in blocks of 4 outputs x 4
inputs. Blocks are pruned first, 80 % of the others unified; pruning alone prunes as many blocks as
the same number of bits asks for. A unified block takes 32 + 16 bits, a free one 512, and 2 more say
which.

Cost: ten minutes on one core: 2 pre-trainings of 40 s, shared with R2, and 14 trainings of 40 s.
Expected: unification is ahead of pruning at the same number of bits, and ADMM of doing it at once.
"""

from experiments.recipes import Recipe, unified
from experiments.runs.table import Claim, Contrast, Row, Term, more, no_less
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress, unified_bits
from sparsejax import Block

TITLE = "Micro-structured unification and pruning"
STEPS = 1_000
PRETRAINING = Classify(steps=1_500)


def _row(name: str, method: Recipe, sparsity: float, seeds: int = 2) -> Row:
    setting = Compress(
        method,
        PRETRAINING,
        sparsity,
        pattern=Block(4, 4),
        steps=STEPS,
        account=unified_bits,
    )
    return Row(name, setting, seeds)


def bits_ratio(pruned: float, share: float) -> float:
    """Bits / dense bits of blocks of 16 weights, when a share of those kept is unified."""
    kept = 1.0 - pruned
    return kept * (share * (32 + 16) + (1 - share) * 512) / 512 + 2 / 512


def pruned_for(ratio: float) -> float:
    """The share of pruned blocks that takes as many bits without unification."""
    return round(1.0 - (ratio - 2 / 512), 3)


HALF, MOST = 0.5, 0.8  # pruned blocks beside the unified ones
ROWS = (
    _row("unified, none pruned", unified.unified_by_admm, 0.0),
    _row("unified, 50 % pruned", unified.unified_by_admm, HALF),
    _row("unified at once, 50 % pruned", unified.unified_at_once, HALF),
    _row("pruned, bits of 50 %", unified.pruned_by_admm, pruned_for(bits_ratio(HALF, 0.8))),
    _row("pruned at once, bits of 50 %", unified.pruned_at_once, pruned_for(bits_ratio(HALF, 0.8))),
    _row("unified, 80 % pruned", unified.unified_by_admm, MOST),
    _row("pruned, bits of 80 %", unified.pruned_by_admm, pruned_for(bits_ratio(MOST, 0.8))),
)

PAPER = ()

CLAIMS = (
    Claim(
        "at the bits of 50 % pruned and unified: unification > pruning alone",
        more("unified, 50 % pruned", "pruned, bits of 50 %"),
    ),
    Claim(
        "at the bits of 80 % pruned and unified: unification > pruning alone",
        more("unified, 80 % pruned", "pruned, bits of 80 %"),
    ),
    Claim(
        "ADMM >= unification at once",
        no_less("unified, 50 % pruned", "unified at once, 50 % pruned"),
    ),
    Claim(
        "80 % of all blocks unified cost less than two points",
        Contrast(
            (
                Term("unified, none pruned"),
                Term("unified, none pruned", "accuracy_before", -1.0),
            ),
            above=-0.02,
        ),
    ),
)
