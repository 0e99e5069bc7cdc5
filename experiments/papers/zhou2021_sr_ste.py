"""SR-STE: N:M from scratch, against the plain straight-through estimator, PDP and GMP.

Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun, Li, "Learning N:M Fine-grained Structured Sparse Neural
Networks From Scratch", ICLR 2021, arXiv:2102.04010.

    python -m experiments run zhou2021_sr_ste

Cost: 22 trainings of about a minute and a half on one core. Expected: SR-STE is better than STE,
more so at 1:4 than at 2:4, where all are close to dense. Here Adam trains: SR-STE decays pruned
weights after its step, by as much at the peak of the rate as the paper's SGD does; in the rows "in
the gradient" Adam divides the decay by its size.
"""

import sparsejax as sj
from experiments.recipes import magnitude, soft
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings.classify import Classify

TITLE = "N:M from scratch (SR-STE)"
README = "official repository's README"

METHODS = {
    "sr-ste": (soft.sr_ste, 3),
    "sr-ste, decay in the gradient,": (soft.sr_ste_in_the_gradient, 3),
    "pdp": (soft.pdp, 3),
    "ste": (soft.straight_through, 1),
    "gmp": (magnitude.gmp, 1),
}
ROWS: tuple[Row, ...] = tuple(
    Row(f"{name} {n}:4", Classify(method, pattern=sj.NM(n, 4)), seeds)
    for n in (2, 1)
    for name, (method, seeds) in METHODS.items()
)

PAPER = (
    PaperNumber("ResNet-50, ImageNet, 2:4", 77.0, "% top-1", README, "sr-ste 2:4"),
    PaperNumber("ResNet-50, ImageNet, 1:4", 75.9, "% top-1", README, "sr-ste 1:4"),
    PaperNumber("ResNet-50, ImageNet, 4:8", 77.4, "% top-1", README),
    PaperNumber("ResNet-50, ImageNet, 2:8", 76.4, "% top-1", README),
    PaperNumber("ResNet-18, ImageNet, 2:4", 71.2, "% top-1", README),
)

CLAIMS = (
    Claim("SR-STE > STE at 1:4", more("sr-ste 1:4", "ste 1:4")),
    Claim("SR-STE >= STE at 2:4", no_less("sr-ste 2:4", "ste 2:4")),
    Claim("PDP > SR-STE at 1:4", more("pdp 1:4", "sr-ste 1:4")),
    Claim("SR-STE at 2:4 > at 1:4", more("sr-ste 2:4", "sr-ste 1:4")),
)
