"""Fast Sparse ConvNets: wide sparse networks against narrow dense ones.

Elsen, Dukhan, Gale, Simonyan, "Fast Sparse ConvNets", CVPR 2020, arXiv:1911.09723.

    python -m experiments run elsen2020_fast_sparse_convnets

Only 1x1 convolutions are pruned, all to one sparsity; the first convolution, depthwise convolutions
and the head stay dense, which is what the percentages count. Blocks of 4 output channels in the
last block of MobileNet-v1 and of 2 from inverted residual 11 of MobileNet-v2 on. How fast the
networks then run is measured by `python -m benchmarks.peers`.

Cost: 15 trainings, about 40 minutes on one core. Expected: MobileNet-v1 of width 0.5 at 90 % is
better than the dense one of width 0.25, which has more weights; blocks cost little.
"""

import sparsejax as sj
from experiments.models import networks
from experiments.recipes import magnitude
from experiments.runs.table import Claim, Fact, PaperNumber, Row, more, no_less
from experiments.settings.classify import Classify

TITLE = "Fast Sparse ConvNets"
README = "authors' README in the repository google-research"
HALF = networks.mobilenet_v1_half
RECIPE = magnitude.fast_sparse_convnets


def _sparse(sparsity: float, net: networks.MakeNet, prunable: str, **options) -> Classify:
    return Classify(
        RECIPE, sparsity, net=net, prunable=prunable, allocate=sj.allocate.uniform, **options
    )


V2 = r"(expand|project)/kernel"
V2_BLOCKS = ((r"blocks/(1\d)/(expand|project)/kernel", sj.Block(2, 1)),)

ROWS = (
    Row("MobileNet-v1 0.25 dense", Classify(), seeds=3),
    Row("MobileNet-v1 0.5 dense", Classify(net=HALF)),
    Row("MobileNet-v1 0.5, 90 %", _sparse(0.9, HALF, r"pointwise/kernel"), seeds=3),
    Row(
        "MobileNet-v1 0.5, 4x1 in the last block, 90 %",
        _sparse(
            0.9,
            HALF,
            r"pointwise/kernel",
            exceptions=((r"blocks/12/pointwise/kernel", sj.Block(4, 1)),),
        ),
        seeds=3,
    ),
    Row(
        "MobileNet-v1 0.5, 4x1 everywhere, 90 %",
        _sparse(0.9, HALF, r"pointwise/kernel", pattern=sj.Block(4, 1)),
    ),
    Row(
        "MobileNet-v2 0.5 dense", Classify(net=networks.mobilenet_v2_half, prunable=V2, steps=1_000)
    ),
    Row(
        "MobileNet-v2 0.5, 2x1 from block 11 on, 85 %",
        _sparse(0.85, networks.mobilenet_v2_half, V2, exceptions=V2_BLOCKS, steps=1_000),
    ),
    Row(
        "EfficientNet-B0 0.25 dense",
        Classify(net=networks.efficientnet_b0_quarter, prunable=V2, steps=1_000),
    ),
    Row(
        "EfficientNet-B0 0.25, 80 %",
        _sparse(0.8, networks.efficientnet_b0_quarter, V2, steps=1_000),
    ),
)

PAPER = (
    PaperNumber("MobileNet-v1 0.75, ImageNet, 90 % of 1x1", 64.4, "% top-1", README),
    PaperNumber("MobileNet-v1 1.0, ImageNet, 90 % of 1x1", 68.4, "% top-1", README),
    PaperNumber("MobileNet-v1 1.4, ImageNet, 90 % of 1x1", 72.0, "% top-1", README),
    PaperNumber("MobileNet-v1 1.0 at 90 %, Snapdragon 835", 31, "ms", README),
    PaperNumber("MobileNet-v2 1.15, ImageNet, 85 % of 1x1", 70.2, "% top-1", README),
    PaperNumber("EfficientNet-B0, ImageNet, 80 %", 75.1, "% top-1", README),
    PaperNumber("dense at equal accuracy, lowest", 1.3, "x time", "abstract"),
    PaperNumber("dense at equal accuracy, highest", 2.4, "x time", "abstract"),
)

CLAIMS = (
    Claim(
        "width 0.5 at 90 % is better than dense width 0.25, with fewer weights",
        more("MobileNet-v1 0.5, 90 %", "MobileNet-v1 0.25 dense"),
        Fact(
            lambda r: _weights(r, "MobileNet-v1 0.5, 90 %") < _weights(r, "MobileNet-v1 0.25 dense")
        ),
    ),
    Claim(
        "4x1 blocks in the last block cost less than half a point",
        no_less(
            "MobileNet-v1 0.5, 4x1 in the last block, 90 %", "MobileNet-v1 0.5, 90 %", by=0.005
        ),
    ),
)


def _weights(results, row):
    """Nonzero parameters."""
    return results.mean(row, "parameters") * (1 - results.mean(row, "sparsity_of_all"))
