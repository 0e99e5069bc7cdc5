"""AC/DC: sparse and dense phases in turn, against GMP and global magnitude pruning.

Peste, Iofinova, Vladu, Alistarh, "AC/DC: Alternating Compressed/DeCompressed Training of Deep
Neural Networks", NeurIPS 2021, arXiv:2106.12379.

    python -m experiments run peste2021_ac_dc

Cost: 24 trainings of about a minute and a half on one core, two thirds of them shared with
zhu2017_gmp and gupta2022_global_mp. Expected: AC/DC is better than GMP, most at high sparsity.

Found: a phase is 150 steps here, where the paper's are five epochs of ImageNet, and what is cut at
once has no time to recover. Targets by layer in place of one threshold do not help (85.0 % at 90 %
and 77.2 % at 98 %, one seed).
"""

from experiments.recipes import magnitude, soft
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import ladder

TITLE = "Alternating compressed / decompressed training (AC/DC)"
README = "official repository's README"

ROWS: tuple[Row, ...] = (
    *ladder("ac/dc", soft.ac_dc),
    *ladder("gmp, ERK", magnitude.gmp),
    *ladder("global mp", magnitude.global_mp),
)

PAPER = (
    PaperNumber("ResNet-50, ImageNet, 80 %", 76.45, "% top-1", README, "ac/dc 80 %"),
    PaperNumber("ResNet-50, ImageNet, 90 %", 75.03, "% top-1", README, "ac/dc 90 %"),
    PaperNumber("ResNet-50, ImageNet, 95 %", 73.14, "% top-1", README, "ac/dc 95 %"),
    PaperNumber("ResNet-50, ImageNet, 98 %", 68.48, "% top-1", README, "ac/dc 98 %"),
    PaperNumber("MobileNet-v1, ImageNet, 75 %", 70.41, "% top-1", README),
    PaperNumber("MobileNet-v1, ImageNet, 90 %", 66.24, "% top-1", README),
)

CLAIMS = (
    Claim("AC/DC > GMP at 90 %", more("ac/dc 90 %", "gmp, ERK 90 %")),
    Claim("AC/DC > GMP at 98 %", more("ac/dc 98 %", "gmp, ERK 98 %")),
    Claim("AC/DC > global magnitude at 98 %", more("ac/dc 98 %", "global mp 98 %")),
)
