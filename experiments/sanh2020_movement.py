"""Movement pruning, hard and soft, against GMP: from scratch, and as in the paper by fine-tuning.

Sanh, Wolf, Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020,
arXiv:2005.07683.

    python -m experiments run sanh2020_movement

Cost: 18 trainings of about a minute and a half on one core, half of them shared with zhu2017_gmp,
and 4 of about 4 minutes for the text rows (MiniLM on movie sentiment; `pip install
"sparsejax[text]"`).
Expected: the paper's claim is for pretrained nets at high sparsity: soft > hard > magnitude there.
A net that learns from scratch moves its weights wherever it needs them, so that the advantage over
magnitude need not show.
"""

from experiments.classify import Classify, ladder
from experiments.recipes import magnitude, soft
from experiments.table import Claim, PaperNumber, Row
from experiments.text_tuning import FineTuneText

TITLE = "Movement pruning"
README = "authors' README, with distillation"

ROWS: tuple[Row, ...] = (
    *ladder("movement", soft.movement),
    Row("soft movement 90 %", Classify(soft.soft_movement, 0.9)),
    Row("soft movement 98 %", Classify(soft.soft_movement, 0.98)),
    *ladder("gmp", magnitude.gmp),
    Row("text dense", FineTuneText()),
    Row("text gmp 90 %", FineTuneText(magnitude.gmp, 0.9)),
    Row("text movement 90 %", FineTuneText(soft.movement, 0.9)),
    Row("text soft movement 90 %", FineTuneText(soft.soft_movement, 0.9)),
)

PAPER = (
    PaperNumber("BERT, MNLI, dense", 84.5, "% accuracy", README, "text dense"),
    PaperNumber("BERT, MNLI, movement, 90 %", 80.1, "% accuracy", README, "text movement 90 %"),
    PaperNumber("BERT, MNLI, movement, 97 %", 76.5, "% accuracy", README, "movement 98 %"),
    PaperNumber("BERT, MNLI, soft, 90 %", 81.2, "% accuracy", README, "text soft movement 90 %"),
    PaperNumber("BERT, MNLI, soft, 97 %", 79.5, "% accuracy", README, "soft movement 98 %"),
    PaperNumber("BERT, MNLI, magnitude, 90 %", 78.3, "% accuracy", README, "text gmp 90 %"),
    PaperNumber("BERT, MNLI, magnitude, 97 %", 69.4, "% accuracy", README, "gmp 98 %"),
)

CLAIMS = (
    Claim("movement > GMP at 98 %", lambda r: r.mean("movement 98 %") > r.mean("gmp 98 %")),
    Claim(
        "soft > hard at 98 %",
        lambda r: r.mean("soft movement 98 %") > r.mean("movement 98 %"),
    ),
    Claim(
        "fine-tuning MiniLM to 90 %, movement > GMP",
        lambda r: r.mean("text movement 90 %") > r.mean("text gmp 90 %"),
    ),
    Claim(
        "fine-tuning MiniLM to 90 %, soft > hard",
        lambda r: r.mean("text soft movement 90 %") > r.mean("text movement 90 %"),
    ),
)
