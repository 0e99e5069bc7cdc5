"""SNIP: masks from one look at the gradients of the initial weights, against random ones.

Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
ICLR 2019, arXiv:1810.02340.

    python -m experiments run lee2019_snip

The 1x1 convolutions are ranked as in the other tables; the rows of "all layers" rank every kernel,
as the paper does.

Cost: 24 trainings of about a minute on one core, those of the static masks among them. Expected:
SNIP beats a random mask at 80 and 90 %; at 98 % it may starve a layer.

Found: it starves one at 90 % already. Sensitivities shrink with the width of a layer, and one
threshold for all leaves the last 1x1 convolution 2 to 6 of its 65,536 weights.
"""

from experiments.recipes import dynamic, initial
from experiments.runs.table import Claim, PaperNumber, more
from experiments.settings.classify import ladder

TITLE = "Single-shot network pruning (SNIP)"
GUPTA = "CIFAR-10 tables of arXiv:2209.14624"

ROWS = (
    *ladder("snip", initial.snip),
    *ladder("static", dynamic.static_random),
    *ladder("snip, all layers,", initial.snip, prunable=r"kernel$"),
)

PAPER = (
    PaperNumber("WRN-28-8, CIFAR-10, SNIP, 90 %", 95.49, "% top-1", GUPTA, "snip 90 %"),
    PaperNumber("WRN-28-8, CIFAR-10, SNIP, 95 %", 94.93, "% top-1", GUPTA, "snip 95 %"),
    PaperNumber("WRN-28-8, CIFAR-10, SNIP, 97.5 %", 94.11, "% top-1", GUPTA),
    PaperNumber("ResNet-32, CIFAR-10, SNIP, 90 %", 90.40, "% top-1", GUPTA, "snip 90 %"),
    PaperNumber("ResNet-32, CIFAR-10, SNIP, 95 %", 87.23, "% top-1", GUPTA, "snip 95 %"),
)

CLAIMS = (
    Claim("SNIP > random at 80 %", more("snip 80 %", "static 80 %")),
    Claim("SNIP > random at 90 %", more("snip 90 %", "static 90 %")),
)
