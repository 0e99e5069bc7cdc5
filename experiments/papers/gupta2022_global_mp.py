"""Global magnitude pruning, with and without the minimum threshold, against layerwise GMP.

Gupta, Camci, Keneta, Vaidyanathan, Kanodia, Foo, Wu, Lin, "Is Complexity Required for Neural
Network Pruning? A Case Study on Global Magnitude Pruning", 2022, arXiv:2209.14624.

    python -m experiments run gupta2022_global_mp

Cost: 35 trainings of 90 s on one core, those of `zhu2017_gmp` among them. Expected: global is no
worse than layerwise at high sparsity; the minimum threshold helps at 98 %, where single layers
would otherwise lose nearly everything. As in the other tables the 1x1 convolutions are pruned; the
rows of "all layers" prune every kernel, the first, the depthwise and the last, as the paper does.
"""

from experiments.recipes import magnitude
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings.classify import Classify, ladder

TITLE = "Is complexity required? Global magnitude pruning"
MOBILENET, RESNET, CIFAR = "MobileNet-v1 table", "ResNet-50 table", "CIFAR-10 tables"

ALL: dict = {"prunable": r"kernel$"}

ROWS = (
    Row("dense", Classify(), seeds=3),
    *ladder("gmp, ERK", magnitude.gmp),
    *ladder("global", magnitude.global_mp),
    *ladder("global + MT", magnitude.global_mp_floor),
    Row("global, all layers 95 %", Classify(magnitude.global_mp, 0.95, **ALL)),
    Row("global + MT, all layers 95 %", Classify(magnitude.global_mp_floor, 0.95, **ALL)),
    Row("global, all layers 98 %", Classify(magnitude.global_mp, 0.98, **ALL), seeds=3),
    Row("global + MT, all layers 98 %", Classify(magnitude.global_mp_floor, 0.98, **ALL), seeds=3),
)

PAPER = (
    PaperNumber("MobileNet-v1, ImageNet, dense", 71.95, "% top-1", MOBILENET, "dense"),
    PaperNumber("MobileNet-v1, ImageNet, global, 75.28 %", 70.74, "% top-1", MOBILENET),
    PaperNumber(
        "MobileNet-v1, ImageNet, GMP, 89.03 %", 61.80, "% top-1", MOBILENET, "gmp, ERK 90 %"
    ),
    PaperNumber("MobileNet-v1, ImageNet, global, 90 %", 59.49, "% top-1", MOBILENET, "global 90 %"),
    PaperNumber(
        "MobileNet-v1, ImageNet, global + MT, 90 %", 63.94, "% top-1", MOBILENET, "global + MT 90 %"
    ),
    PaperNumber(
        "ResNet-50, ImageNet, global gradual, 80 %", 76.12, "% top-1", RESNET, "global 80 %"
    ),
    PaperNumber(
        "ResNet-50, ImageNet, global gradual, 90 %", 74.83, "% top-1", RESNET, "global 90 %"
    ),
    PaperNumber(
        "ResNet-50, ImageNet, global gradual, 95.3 %", 72.14, "% top-1", RESNET, "global 95 %"
    ),
    PaperNumber(
        "ResNet-50, ImageNet, global gradual, 98.05 %", 66.57, "% top-1", RESNET, "global 98 %"
    ),
    PaperNumber("ResNet-50, ImageNet, GMP, 98 %", 57.90, "% top-1", RESNET, "gmp, ERK 98 %"),
    PaperNumber(
        "MobileNet-v2, CIFAR-10, global, 98 %", 10.0, "% top-1", CIFAR, "global, all layers 98 %"
    ),
    PaperNumber(
        "MobileNet-v2, CIFAR-10, global + MT, 98 %",
        82.97,
        "% top-1",
        CIFAR,
        "global + MT, all layers 98 %",
    ),
)

CLAIMS = (
    Claim("global >= GMP at 98 %", no_less("global 98 %", "gmp, ERK 98 %")),
    Claim(
        "the minimum threshold helps where layers would collapse: all layers at 98 %",
        more("global + MT, all layers 98 %", "global, all layers 98 %"),
    ),
    Claim(
        "all layers at 95 %: the minimum threshold helps",
        more("global + MT, all layers 95 %", "global, all layers 95 %"),
    ),
    Claim(
        "it changes nothing much where they would not: within a point at 80 %",
        no_less("global + MT 80 %", "global 80 %", by=0.01),
        no_less("global 80 %", "global + MT 80 %", by=0.01),
    ),
)
