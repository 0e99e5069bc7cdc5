"""Sparse-to-sparse training: RigL, SET and a fixed random mask, against GMP from dense.

Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020,
arXiv:1911.11134.

    python -m experiments run evci2020_rigl

Cost: 35 trainings of about a minute on one core. Expected: RigL > SET > static.
"""

from experiments.recipes import dynamic, magnitude
from experiments.runs.table import Claim, PaperNumber, Row
from experiments.settings.classify import Classify, ladder

TITLE = "Rigging the lottery (RigL), with SET and static masks"
README = "official repository's README"

ROWS = (
    Row("dense", Classify(), seeds=3),
    *ladder("static", dynamic.static_random),
    *ladder("set", dynamic.sparse_evolution),
    *ladder("rigl", dynamic.rigl),
    *ladder("gmp", magnitude.gmp),
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

CLAIMS = tuple(
    Claim(f"{better} > {worse} at {at} %", holds)
    for better, worse, at, holds in (
        ("RigL", "static", 90, lambda r: r.mean("rigl 90 %") > r.mean("static 90 %")),
        ("RigL", "static", 98, lambda r: r.mean("rigl 98 %") > r.mean("static 98 %")),
        ("RigL", "SET", 90, lambda r: r.mean("rigl 90 %") > r.mean("set 90 %")),
        ("RigL", "SET", 98, lambda r: r.mean("rigl 98 %") > r.mean("set 98 %")),
        ("SET", "static", 98, lambda r: r.mean("set 98 %") > r.mean("static 98 %")),
    )
)
