"""A gradient-flow framework: five measures of a filter's importance, in one round and in 25.

Lubana and Dick, "A Gradient Flow Framework for Analyzing Network Pruning", ICLR 2021,
arXiv:2009.11839.

    python -m experiments run lubana2021_gradient_flow

VGG-13 of a quarter of the channels on Fashion-MNIST at 14x14, 75 % of all filters, 1,500 steps of
64 (AdamW, one cycle); a round is 25 steps. Cost: 20 trainings of one to two minutes on one core
(35 ms a step). Expected: biased loss preservation is no worse than loss preservation; GraSP at a
temperature of 200 gives the worst nets and the size of its score repairs that. The measures use the
statistics of their batches in batch norm, where the paper's code uses the running ones.
"""

import sparsejax as sj
from experiments.data.half_size import fashion_mnist_14
from experiments.models import networks
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings import flow
from experiments.settings.classify import Classify

TITLE = "A gradient-flow framework for pruning filters"
MEASURES = {
    "magnitude": flow.magnitude,
    "loss": flow.loss_based,
    "biased loss": flow.biased_loss,
    "grasp": flow.grasp,
    "gradient preserving": flow.gradient_preserving,
}

TRAINING = Classify(
    sparsity=0.75,
    net=networks.vgg13_quarter,
    data=fashion_mnist_14,
    prunable=r"convs/.*kernel",
    pattern=sj.Channel(),
    allocate=sj.allocate.uniform,
    steps=1_500,
)

ROWS = tuple(
    Row(f"{name}, n = {rounds}", flow.Flow(measure, rounds, TRAINING), seeds=2)
    for rounds in (1, 25)
    for name, measure in MEASURES.items()
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim(
        "biased loss >= loss in one round, on a barely trained net",
        no_less("biased loss, n = 1", "loss, n = 1"),
    ),
    Claim(
        "GraSP is the worst in one round",
        *(no_less(f"{name}, n = 1", "grasp, n = 1") for name in MEASURES if name != "grasp"),
    ),
    Claim(
        "the size of the score repairs GraSP, n = 1",
        more("gradient preserving, n = 1", "grasp, n = 1"),
    ),
    Claim(
        "the size of the score repairs GraSP, n = 25",
        more("gradient preserving, n = 25", "grasp, n = 25"),
    ),
    Claim("more rounds help loss preservation", no_less("loss, n = 25", "loss, n = 1")),
)
