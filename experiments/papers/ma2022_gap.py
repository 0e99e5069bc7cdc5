"""Scheduled grow-and-prune (GaP), cyclic and parallel, against GMP and RigL.

Ma, Qin, Sun et al., "Effective Model Sparsification by Scheduled Grow-and-Prune Methods",
ICLR 2022, arXiv:2106.09857.

    python -m experiments run ma2022_gap

Cost: 36 trainings of about a minute on one core, those of GMP and RigL among them. Expected: GaP
beats RigL. The paper trains 990 epochs; here eight phases share one budget with the other methods,
so that GaP need not beat GMP. The learning rate restarts with each phase, as in the paper; the rows
"on one schedule" do without. The two copies of P-GaP train as many steps as the others each, with
three schedules of a third.
"""

from experiments.recipes import dynamic, elastic, magnitude
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings.classify import Classify, ladder
from experiments.settings.parallel_gap import ParallelGap

TITLE = "Scheduled grow-and-prune (GaP)"
README = "official repository's README"

ROWS = (
    *ladder("gap", elastic.gap),
    *ladder("gap on one schedule,", elastic.gap_on_one_schedule),
    Row("p-gap, 2 parts, 90 %", ParallelGap(Classify(sparsity=0.9, steps=1_000))),
    Row("p-gap, 2 parts, 98 %", ParallelGap(Classify(sparsity=0.98, steps=1_000))),
    *ladder("gmp, ERK", magnitude.gmp),
    *ladder("rigl", dynamic.rigl),
)

PAPER = (
    PaperNumber("ResNet-50, ImageNet, C-GaP uniform, 80 %", 77.856, "% top-1", README, "gap 80 %"),
    PaperNumber("ResNet-50, ImageNet, C-GaP uniform, 90 %", 76.348, "% top-1", README, "gap 90 %"),
    PaperNumber("ResNet-50, ImageNet, C-GaP non-uniform, 80 %", 78.132, "% top-1", README),
    PaperNumber("ResNet-50, ImageNet, C-GaP non-uniform, 90 %", 77.896, "% top-1", README),
    PaperNumber("ResNet-50, ImageNet, P-GaP uniform, 80 %", 77.492, "% top-1", README),
    PaperNumber(
        "ResNet-50, ImageNet, P-GaP uniform, 90 %",
        76.128,
        "% top-1",
        README,
        "p-gap, 2 parts, 90 %",
    ),
)

CLAIMS = (
    Claim("GaP > RigL at 80 %", more("gap 80 %", "rigl 80 %")),
    Claim("GaP > RigL at 90 %", more("gap 90 %", "rigl 90 %")),
    Claim("GaP > RigL at 98 %", more("gap 98 %", "rigl 98 %")),
    Claim("restarts help at 98 %", more("gap 98 %", "gap on one schedule, 98 %")),
)
