"""Top-KAST: sparse in the forward and the backward pass, against RigL and a fixed mask.

Jayakumar, Pascanu, Rae, Osindero, Elsen, "Top-KAST: Top-K Always Sparse Training", NeurIPS 2020,
arXiv:2106.03517.

    python -m experiments run jayakumar2021_top_kast

Cost: 18 trainings of about a minute and a half on one core, most of them shared with
evci2020_rigl. Expected: Top-KAST is better than a fixed mask and near RigL. No number of the paper
is at hand.
"""

from experiments.recipes import dynamic, soft
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import Classify, ladder

TITLE = "Top-K always sparse training (Top-KAST)"

ROWS: tuple[Row, ...] = (
    Row("top-kast 90 %", Classify(soft.top_kast, 0.9)),
    Row("top-kast 98 %", Classify(soft.top_kast, 0.98)),
    *ladder("static", dynamic.static_random),
    *ladder("rigl", dynamic.rigl),
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim("Top-KAST > static at 90 %", more("top-kast 90 %", "static 90 %")),
    Claim("Top-KAST > static at 98 %", more("top-kast 98 %", "static 98 %")),
)
