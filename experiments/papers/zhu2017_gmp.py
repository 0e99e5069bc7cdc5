"""Gradual magnitude pruning, and a dense training to compare everything with.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
2017, arXiv:1710.01878.

    python -m experiments run zhu2017_gmp

Cost: 19 trainings of about a minute on one core. Expected: accuracy falls slowly to 90 % and fast
after 95 %.
"""

import sparsejax as sj
from experiments.recipes import magnitude
from experiments.runs.table import MARGIN, Claim, Contrast, PaperNumber, Row, Term, no_less
from experiments.settings.classify import Classify, ladder

TITLE = "To prune, or not to prune: gradual magnitude pruning"
GLOBAL_MP_TABLE = "MobileNet-v1 table of Gupta et al., arXiv:2209.14624"
STATE = "published results of Gale et al., arXiv:1902.09574"

ROWS = (
    Row("dense", Classify(), seeds=3),
    *ladder("gmp, ERK", magnitude.gmp),
    *ladder("gmp, uniform", magnitude.gmp, allocate=sj.allocate.uniform),
)

PAPER = (
    PaperNumber("MobileNet-v1, ImageNet, 74.11 %", 67.70, "% top-1", GLOBAL_MP_TABLE),
    PaperNumber(
        "MobileNet-v1, ImageNet, 89.03 %", 61.80, "% top-1", GLOBAL_MP_TABLE, "gmp, uniform 90 %"
    ),
    PaperNumber("ResNet-50, ImageNet, 80 %", 75.58, "% top-1", STATE, "gmp, uniform 80 %"),
    PaperNumber("ResNet-50, ImageNet, 90 %", 73.91, "% top-1", STATE, "gmp, uniform 90 %"),
    PaperNumber("ResNet-50, ImageNet, 95 %", 70.59, "% top-1", STATE, "gmp, uniform 95 %"),
    PaperNumber("ResNet-50, ImageNet, 98 %", 57.90, "% top-1", STATE, "gmp, uniform 98 %"),
)

CLAIMS = (
    Claim(
        "sparser is never better",
        *(no_less(f"gmp, ERK {a} %", f"gmp, ERK {b} %") for a, b in ((80, 90), (90, 95), (95, 98))),
    ),
    Claim(
        "95 to 98 % costs more than 80 to 95 %",
        Contrast(
            (
                Term("gmp, ERK 95 %", factor=2.0),
                Term("gmp, ERK 98 %", factor=-1.0),
                Term("gmp, ERK 80 %", factor=-1.0),
            ),
            margin=MARGIN,
        ),
    ),
)
