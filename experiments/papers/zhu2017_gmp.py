"""Gradual magnitude pruning, and a dense training to compare everything with.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
2017, arXiv:1710.01878.

    python -m experiments run zhu2017_gmp

Cost: 11 trainings of about a minute on one core. Expected: accuracy falls slowly to 90 % and fast
after 95 %.
"""

import itertools

from experiments.recipes import magnitude
from experiments.runs.table import Claim, PaperNumber, Row
from experiments.settings.classify import Classify, ladder

TITLE = "To prune, or not to prune: gradual magnitude pruning"
GLOBAL_MP_TABLE = "MobileNet-v1 table of Gupta et al., arXiv:2209.14624"
STATE = "published results of Gale et al., arXiv:1902.09574"

ROWS = (Row("dense", Classify(), seeds=3), *ladder("gmp", magnitude.gmp))

PAPER = (
    PaperNumber("MobileNet-v1, ImageNet, 74.11 %", 67.70, "% top-1", GLOBAL_MP_TABLE),
    PaperNumber("MobileNet-v1, ImageNet, 89.03 %", 61.80, "% top-1", GLOBAL_MP_TABLE, "gmp 90 %"),
    PaperNumber("ResNet-50, ImageNet, 80 %", 75.58, "% top-1", STATE, "gmp 80 %"),
    PaperNumber("ResNet-50, ImageNet, 90 %", 73.91, "% top-1", STATE, "gmp 90 %"),
    PaperNumber("ResNet-50, ImageNet, 95 %", 70.59, "% top-1", STATE, "gmp 95 %"),
    PaperNumber("ResNet-50, ImageNet, 98 %", 57.90, "% top-1", STATE, "gmp 98 %"),
)

CLAIMS = (
    Claim("sparser is never better", lambda r: _falls(r, (80, 90, 95, 98))),
    Claim(
        "95 to 98 % costs more than 80 to 95 %",
        lambda r: r.mean("gmp 95 %") - r.mean("gmp 98 %") > r.mean("gmp 80 %") - r.mean("gmp 95 %"),
    ),
)


def _falls(results, percents):
    means = [results.mean(f"gmp {percent} %") for percent in percents]
    return all(more >= less for more, less in itertools.pairwise(means))
