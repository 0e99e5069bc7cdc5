"""FastGRNN made smaller by global magnitude pruning of whole columns of its low-rank factors.

Gupta, Camci, Keneta, Vaidyanathan, Kanodia, Foo, Wu, Lin, "Is Complexity Required for Neural
Network Pruning? A Case Study on Global Magnitude Pruning", 2022, arXiv:2209.14624, FastGRNN table.

    python -m experiments run gupta2022_fastgrnn

The columns of W1 and of U1 with the least sums of |w| go, so that the ranks (r_W, r_U) of W = W1 W2
and U = U1 U2 fall from (6, 80) to a few: train dense for half of the steps, prune at once, train on
with the masks. "made small" is FastGRNN of 80 units made at the ranks (6, 8) and trained for as
many steps. The paper's data are HAR-2 with 9 channels, ours the seven exercises of a smart watch
with 6 channels and three people left out, so that r_W is out of 6 and not of 9.

Cost: 11 trainings of 800 steps, about a minute each on one core. Expected: pruned to a rank of 8,
FastGRNN loses little against the full ranks, and is better than one made small.
"""

from experiments.data.sequences import watch
from experiments.models.recurrent import fastgrnn_80, fastgrnn_80_low_rank
from experiments.recipes.blocks import one_shot_half_way
from experiments.recipes.magnitude import dense
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings import recurrent
from experiments.settings.classify import Classify
from sparsejax import Channel

TITLE = "Global magnitude pruning of FastGRNN's ranks"
TABLE = "FastGRNN table"


def _fastgrnn(method=dense, net=fastgrnn_80, **options) -> Classify:
    return Classify(
        method,
        net=net,
        data=watch,
        prunable=r"(input1|recurrent1)/kernel",
        pattern=Channel(),
        steps=800,
        **options,
    )


def _pruned(allocate, kept: int) -> Classify:
    """`kept` weights of 6 x 6 and 80 x 80 stay."""
    sparsity = round(1 - kept / (36 + 6400), 4)
    return _fastgrnn(one_shot_half_way, sparsity=sparsity, allocate=allocate)


ROWS = (
    Row("full ranks (6, 80)", _fastgrnn(), seeds=3),
    Row("pruned to (6, 8)", _pruned(recurrent.to_ranks_6_8, 36 + 640), seeds=3),
    Row("pruned to (6, 7)", _pruned(recurrent.to_ranks_6_7, 36 + 560)),
    Row("pruned to (5, 7)", _pruned(recurrent.to_ranks_5_7, 30 + 560)),
    Row("made small (6, 8)", _fastgrnn(net=fastgrnn_80_low_rank), seeds=3),
)

PAPER = (
    PaperNumber("HAR-2, dense", 96.10, "%", TABLE, "full ranks (6, 80)"),
    PaperNumber("HAR-2, global MP to (9, 8)", 95.89, "%", TABLE, "pruned to (6, 8)"),
    PaperNumber("HAR-2, global MP to (9, 7)", 95.72, "%", TABLE, "pruned to (6, 7)"),
    PaperNumber("HAR-2, global MP to (8, 7)", 95.62, "%", TABLE, "pruned to (5, 7)"),
    PaperNumber("HAR-2, FastGRNN made at (9, 8)", 94.06, "%", TABLE, "made small (6, 8)"),
)

CLAIMS = (
    Claim(
        "pruned to (6, 8) loses less than two points",
        no_less("pruned to (6, 8)", "full ranks (6, 80)", by=0.02),
    ),
    Claim("pruning beats making it small", more("pruned to (6, 8)", "made small (6, 8)")),
)
