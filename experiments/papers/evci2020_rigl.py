"""Sparse-to-sparse training: RigL, SET and a fixed random mask, against GMP from dense.

Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020,
arXiv:1911.11134.

    python -m experiments run evci2020_rigl

Cost: 35 trainings of about a minute on one core. Expected: RigL > SET > static.

SET at 98 % holds 13 % kept weights that are 0.0, RigL none. A likely reason: SET grows at random,
also on inputs that are off, whose ReLU6 is at 0 because no weights lead to them; there no gradient
moves a weight from the zero that it starts at. RigL grows where the gradient is largest.
"""

from experiments.recipes import dynamic, magnitude
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import Classify, ladder

TITLE = "Rigging the lottery (RigL), with SET and static masks"
README = "official repository's README"

ROWS = (
    Row("dense", Classify(), seeds=3),
    *ladder("static", dynamic.static_random),
    *ladder("set", dynamic.sparse_evolution),
    *ladder("rigl", dynamic.rigl),
    *ladder("gmp, ERK", magnitude.gmp),
)

PAPER = (
    PaperNumber("ResNet-50, ImageNet, RigL ERK 1x, 80 %", 75.12, "% top-1", README, "rigl 80 %"),
    PaperNumber("ResNet-50, ImageNet, RigL ERK 1x, 90 %", 73.07, "% top-1", README, "rigl 90 %"),
    PaperNumber("ResNet-50, ImageNet, RigL ERK 5x, 95 %", 74.63, "% top-1", README, "rigl 95 %"),
    PaperNumber("MobileNet-v1, ImageNet, RigL ERK 10x, 89 %", 69.31, "% top-1", README),
    PaperNumber(
        "ResNet-50, ImageNet, SET, 80 %", 74.57, "% top-1", "README of jaxpruner", "set 80 %"
    ),
    PaperNumber(
        "ResNet-50, ImageNet, static, 80 %", 71.34, "% top-1", "README of jaxpruner", "static 80 %"
    ),
)

CLAIMS = (
    Claim("RigL > static at 90 %", more("rigl 90 %", "static 90 %")),
    Claim("RigL > static at 98 %", more("rigl 98 %", "static 98 %")),
    Claim("RigL > SET at 90 %", more("rigl 90 %", "set 90 %")),
    Claim("RigL > SET at 98 %", more("rigl 98 %", "set 98 %")),
    Claim("SET > static at 98 %", more("set 98 %", "static 98 %")),
)
