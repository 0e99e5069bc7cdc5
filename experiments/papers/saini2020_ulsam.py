"""ULSAM: attention maps of groups of channels in the place of a block of MobileNet-v1.

Saini, Jha, Das, Mittal and Mohan, "ULSAM: Ultra-Lightweight Subspace Attention Module for Compact
Convolutional Neural Networks", WACV 2020, arXiv:2006.15102.

    python -m experiments run saini2020_ulsam

MobileNet-v1 of width 0.25 on Fashion-MNIST; one of its five equal blocks becomes subspace attention
with 1, 2, 4 or 8 maps: 9 % fewer multiply-adds, 8 % fewer parameters. The row without the block is
our control, which the paper does not have: what it costs to drop the block and put nothing there.
Which of the equal blocks the authors replaced is not known; ours is the last but one. The paper's
numbers are those of its poster. Cost: 18 trainings of 90 s on one core, three of them shared with
other tables. Expected: accuracy within the noise of the whole network, more maps no worse than one.
"""

from experiments.models import compact
from experiments.runs.table import Claim, PaperNumber, Row, no_less
from experiments.settings.classify import Classify

TITLE = "ULSAM: subspace attention for a block"

ROWS = (
    Row("MobileNet-v1", Classify(), 3),
    Row("1 map", Classify(net=compact.ulsam_1), 3),
    Row("2 maps", Classify(net=compact.ulsam_2), 3),
    Row("4 maps", Classify(net=compact.ulsam_4), 3),
    Row("8 maps", Classify(net=compact.ulsam_8), 3),
    Row("nothing for the block", Classify(net=compact.without_block), 3),
)

_POSTER = "poster, ImageNet top-1, MobileNet-v1"
PAPER = (
    PaperNumber("whole network", 70.65, "%", _POSTER, "MobileNet-v1"),
    PaperNumber("block replaced, g = 1", 69.92, "%", _POSTER, "1 map"),
    PaperNumber("block replaced, g = 2", 70.14, "%", _POSTER, "2 maps"),
    PaperNumber("block replaced, g = 4", 70.43, "%", _POSTER, "4 maps"),
    PaperNumber("block replaced, g = 8", 70.29, "%", _POSTER, "8 maps"),
)

CLAIMS = (
    Claim("attention stands for the block", no_less("4 maps", "MobileNet-v1")),
    Claim("4 maps are no worse than 1", no_less("4 maps", "1 map")),
    Claim(
        "ours: attention is no worse than nothing there",
        no_less("4 maps", "nothing for the block"),
    ),
)
