"""STR: the thresholds of soft thresholding are learned, against GMP.

Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi, "Soft Threshold Weight
Reparameterization for Learnable Sparsity", ICML 2020, arXiv:2002.03231.

    python -m experiments run kusupati2020_str

Cost: 24 trainings of about a minute and a half on one core, a third of them shared with
zhu2017_gmp. Expected: STR is better than GMP at all sparsities, most at the highest.

STR's sparsity is an outcome of its weight decay. In the rows "uncut" it is what it came to, to be
compared with GMP's line in the picture. In the rows "cut" magnitude takes it to the table's between
half and three quarters of the steps, at 90 % most of the way, from 33 %: they say little of STR.
"""

from experiments.recipes import magnitude, soft
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import ladder

TITLE = "Soft threshold reparametrisation (STR)"
README = "official repository's README"

ROWS: tuple[Row, ...] = (
    *ladder("str, uncut,", soft.str_uncut),
    *ladder("str, cut,", soft.str_),
    *ladder("gmp, ERK", magnitude.gmp),
)

PAPER = (
    PaperNumber("ResNet-50, ImageNet, 81.27 %", 76.12, "% top-1", README, "str, uncut, 80 %"),
    PaperNumber("ResNet-50, ImageNet, 90.23 %", 74.31, "% top-1", README, "str, uncut, 90 %"),
    PaperNumber("ResNet-50, ImageNet, 95.15 %", 70.23, "% top-1", README, "str, uncut, 95 %"),
    PaperNumber("ResNet-50, ImageNet, 98.05 %", 61.46, "% top-1", README, "str, uncut, 98 %"),
    PaperNumber("ResNet-50, ImageNet, dense", 77.01, "% top-1", README),
    PaperNumber("MobileNet-v1, ImageNet, 75.28 %", 68.35, "% top-1", README),
    PaperNumber("MobileNet-v1, ImageNet, 89.01 %", 62.10, "% top-1", README),
    PaperNumber("MobileNet-v1, ImageNet, dense", 71.95, "% top-1", README),
)

CLAIMS = (
    Claim("STR, cut, > GMP at 90 %", more("str, cut, 90 %", "gmp, ERK 90 %")),
    Claim("STR, cut, > GMP at 98 %", more("str, cut, 98 %", "gmp, ERK 98 %")),
)
