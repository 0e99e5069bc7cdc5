"""E2GC: group convolutions with groups of one size against one number of groups.

Jha, Saini, Nag and Mittal, "E2GC: Energy-efficient Group Convolution in Deep Neural Networks",
VLSID 2020, arXiv:2006.15100.

    python -m experiments run jha2020_e2gc

MobileNet-v1 of width 0.25 on Fashion-MNIST, its depthwise convolutions in groups: of 4, 8 or 16
channels, beside 16, 8 or 4 groups, whose multiply-adds are the closest (985 k / 1,009 k, 1,297 k /
1,330 k and 1,808 k / 1,986 k an image, of 752 k depthwise). Numbers of groups have more
parameters, as their groups are large in deep layers. Accuracies only: times, and joules where the
machine's counters can be read, are those of `python -m benchmarks.group_conv`. The paper's text was
not at hand, its numbers are those of the abstract. Cost: 21 trainings of 90 s on one core, three of
them shared. Expected: one size is no worse with a half to two thirds of the parameters, and both
are no worse than depthwise.
"""

from experiments.models import compact
from experiments.runs.table import Claim, PaperNumber, Row, no_less
from experiments.settings.classify import Classify

TITLE = "E2GC: groups of one size"

ROWS = (
    Row("depthwise", Classify(), 3),
    Row("groups of 4", Classify(net=compact.groups_of_4), 3),
    Row("16 groups", Classify(net=compact.in_16_groups), 3),
    Row("groups of 8", Classify(net=compact.groups_of_8), 3),
    Row("8 groups", Classify(net=compact.in_8_groups), 3),
    Row("groups of 16", Classify(net=compact.groups_of_16), 3),
    Row("4 groups", Classify(net=compact.in_4_groups), 3),
)

PAPER = (
    PaperNumber("MobileNet-v1, P100, energy efficiency over g groups", 10.8, "%", "abstract"),
    PaperNumber("ResNeXt-50, P100, energy efficiency over g groups", 4.73, "%", "abstract"),
)

PAIRS = ((4, 16), (8, 8), (16, 4))  # channels of a group, groups

CLAIMS = (
    *(
        Claim(f"groups of {size} are no worse than {number}", no_less(*names))
        for size, number in PAIRS
        for names in [(f"groups of {size}", f"{number} groups")]
    ),
    Claim("groups of 8 are no worse than depthwise", no_less("groups of 8", "depthwise")),
)
