"""Neural pruning search: a pattern and a rate for each layer within milliseconds, against uniform.

Zhao, Niu, Yuan, Cai, Ren, Wang, Lin, "Achieving Real-Time Object Detection on Mobile Devices with
Neural Pruning Search", 2021, arXiv:2106.14943.

    python -m experiments run zhao2021_neural_pruning_search

Three 3x3 and three 1x1 convolutions, each unpruned or at one of six rates as single weights,
block-punched, in channels, and with 3x3 in kernel patterns; 0.65 of the dense network's
milliseconds are aimed at, by times of the compiled layers on 16 images, measured once on the
machine that the file of measured times names (at half of them, single weights and channels are not
fast enough at any rate, as a quarter is spent outside of these layers). A trial prunes the trained
network at once, trains it for 15 steps, and is judged on 1,000 held-back images; each search has
40. What is found trains 300 steps more. Cost: 21 trainings of about a minute and a half on one core
(an estimate). Expected: what is searched is more accurate than any uniform choice at equal
milliseconds, and than the best of as many choices at random.

The paper's text was not at hand. Known are Bayesian optimisation over scheme and rate, and the
masks of block-punched pruning (code of the same group); the score, accuracy less what is too slow,
is a reconstruction.
"""

from experiments.runs.table import Claim, Fact, PaperNumber, Results, Row, more
from experiments.settings import search_pruning
from experiments.settings.search_pruning import SearchPruning

TITLE = "Neural pruning search"
ABSTRACT = "abstract"

SEARCHES = {
    "Gaussian process": search_pruning.bayesian,
    "TPE": search_pruning.tpe,
    "random search": search_pruning.random_search,
}
UNIFORM = {
    "uniform, single weights": search_pruning.uniform_single,
    "uniform, block-punched": search_pruning.uniform_block,
    "uniform, channels": search_pruning.uniform_channel,
}
ROWS = (
    Row("dense", SearchPruning(search_pruning.unpruned), seeds=3),
    *(Row(name, SearchPruning(own), seeds=3) for name, own in (SEARCHES | UNIFORM).items()),
)

PAPER = (
    PaperNumber("YOLOv4 on a phone", 55, "ms", ABSTRACT, "Gaussian process"),
    PaperNumber("PointPillars on a phone", 99, "ms", ABSTRACT),
)


def within(r: Results) -> bool:
    """What was searched takes no more than 2 % above what was aimed at."""
    return all(r.mean(row, "milliseconds") <= 1.02 * r.mean(row, "target") for row in SEARCHES)


CLAIMS = (
    Claim(
        "what the Gaussian process finds is more accurate than each uniform choice",
        *(more("Gaussian process", name) for name in UNIFORM),
    ),
    Claim("and than random search at equal cost", more("Gaussian process", "random search")),
    Claim("and than TPE's", more("Gaussian process", "TPE")),
    Claim("searches keep to the milliseconds aimed at", Fact(within)),
)
