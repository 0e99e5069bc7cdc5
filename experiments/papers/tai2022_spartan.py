"""Spartan: a soft top-k in the backward pass, against GMP.

Tai, Tian, Lim, "Spartan: Differentiable Sparsity via Regularized Transportation", NeurIPS 2022,
arXiv:2205.14107.

    python -m experiments run tai2022_spartan

Cost: 10 trainings of about a minute and a half on one core, most of them shared with zhu2017_gmp.
Expected: Spartan is better than GMP, most at high sparsity. No number of the paper is at hand.
"""

from experiments.recipes import magnitude, soft
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import Classify, ladder

TITLE = "Regularized transportation (Spartan)"

ROWS: tuple[Row, ...] = (
    Row("spartan 90 %", Classify(soft.spartan, 0.9)),
    Row("spartan 98 %", Classify(soft.spartan, 0.98)),
    *ladder("gmp, ERK", magnitude.gmp),
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim("Spartan > GMP at 90 %", more("spartan 90 %", "gmp, ERK 90 %")),
    Claim("Spartan > GMP at 98 %", more("spartan 98 %", "gmp, ERK 98 %")),
)
