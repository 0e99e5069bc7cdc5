"""Movement pruning, hard and soft, against GMP: from scratch, and as in the paper by fine-tuning.

Sanh, Wolf, Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020,
arXiv:2005.07683.

    python -m experiments run sanh2020_movement

Cost: 20 trainings of about a minute and a half on one core, half of them shared with zhu2017_gmp,
and 9 of about 4 minutes for the text rows (MiniLM on movie sentiment; `pip install
"sparsejax[text]"`).
Expected: the paper's claim is for pretrained nets at high sparsity: soft > hard > magnitude there.
A net that learns from scratch moves its weights wherever it needs them, so that the advantage over
magnitude need not show.

Soft movement's sparsity is an outcome of its penalty. In the rows "uncut" it is what it came to; in
the rows "cut" magnitude takes it to the table's between half and three quarters of the steps, on
MiniLM from 9 to 90 % in 40 steps: they say little of soft movement.

Found: MiniLM falls to chance while (hard) movement has pruned no more than a fifth. Scores are sums
of small steps of either sign, and in the 32 steps before the ramp these rank weights nearly at
random: large ones go as well. Neither five times as many steps nor scores by plain SGD changed that
(52.4 and 47.6 % at 90 %). The paper's schedule has thousands of steps before it prunes.
"""

from experiments.recipes import magnitude, soft
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import Classify, ladder
from experiments.settings.text_tuning import FineTuneText

TITLE = "Movement pruning"
README = "authors' README, with distillation"

TEXT_METHODS = {
    "gmp": magnitude.gmp,
    "movement": soft.movement,
    "soft movement, uncut,": soft.soft_movement_uncut,
    "soft movement, cut,": soft.soft_movement,
}
ROWS: tuple[Row, ...] = (
    *ladder("movement", soft.movement),
    Row("soft movement, uncut, 90 %", Classify(soft.soft_movement_uncut, 0.9)),
    Row("soft movement, uncut, 98 %", Classify(soft.soft_movement_uncut, 0.98)),
    Row("soft movement, cut, 90 %", Classify(soft.soft_movement, 0.9)),
    Row("soft movement, cut, 98 %", Classify(soft.soft_movement, 0.98)),
    *ladder("gmp, ERK", magnitude.gmp),
    Row("text dense", FineTuneText()),
    *(
        Row(f"text {name} {100 * sparsity:g} %", FineTuneText(method, sparsity))
        for sparsity in (0.9, 0.97)
        for name, method in TEXT_METHODS.items()
    ),
)

PAPER = (
    PaperNumber("BERT, MNLI, dense", 84.5, "% accuracy", README, "text dense"),
    PaperNumber("BERT, MNLI, movement, 90 %", 80.1, "% accuracy", README, "text movement 90 %"),
    PaperNumber("BERT, MNLI, movement, 97 %", 76.5, "% accuracy", README, "text movement 97 %"),
    PaperNumber(
        "BERT, MNLI, soft, 90 %", 81.2, "% accuracy", README, "text soft movement, uncut, 90 %"
    ),
    PaperNumber(
        "BERT, MNLI, soft, 97 %", 79.5, "% accuracy", README, "text soft movement, uncut, 97 %"
    ),
    PaperNumber("BERT, MNLI, magnitude, 90 %", 78.3, "% accuracy", README, "text gmp 90 %"),
    PaperNumber("BERT, MNLI, magnitude, 97 %", 69.4, "% accuracy", README, "text gmp 97 %"),
)


def beats(better: str, worse: str) -> Claim:
    """The claim that one row has the higher mean."""
    return Claim(f"{better} > {worse}", more(better, worse))


CLAIMS = (
    beats("text movement 97 %", "text gmp 97 %"),
    beats("text soft movement, cut, 97 %", "text movement 97 %"),
    beats("text movement 90 %", "text gmp 90 %"),
    beats("text soft movement, cut, 90 %", "text movement 90 %"),
    beats("movement 98 %", "gmp, ERK 98 %"),
)
