"""ProxylessNAS: paths found by gradients through binary gates, against REINFORCE, TPE and chance.

Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR
2019, arXiv:1812.00332.

    python -m experiments run cai2019_proxylessnas

Five edges of three or four paths on 14x14 images; 0.6 of the slowest network's milliseconds are
aimed at, in times of single paths on 32 images, measured once on the machine that the file of
measured times names. Each search trains the weights of all paths for 300 steps of 64 images and
looks at as many validation images; what it finds is trained anew for 400 steps. The reward is the
test accuracy times (reference / milliseconds)^0.1. Cost: 21 trainings of a minute on one core.
Expected: searches earn more than chance, and the network of the slowest paths is no better for what
it costs. The paper has 120 epochs of ImageNet for its search; 300 steps are few for the gates.
"""

from experiments.runs.table import Claim, Contrast, Fact, PaperNumber, Results, Row, Term, more
from experiments.settings import path_searchers
from experiments.settings.search_paths import SearchPaths

TITLE = "ProxylessNAS: paths by gradients"
README = "authors' README"
UNIT = "% top-1"

SEARCHES = {
    "gradients, product": path_searchers.gradient_product,
    "gradients, sum": path_searchers.gradient_sum,
    "REINFORCE": path_searchers.reinforce,
    "TPE": path_searchers.tpe,
    "random search": path_searchers.random_search,
}
ROWS = (
    *(Row(name, SearchPaths(searcher), seeds=3) for name, searcher in SEARCHES.items()),
    Row("slowest paths", SearchPaths(path_searchers.slowest), seeds=3),
    Row("fastest paths, none skipped", SearchPaths(path_searchers.fastest), seeds=3),
)

PAPER = (
    PaperNumber("ImageNet, Pixel 1, 78 ms, Proxyless-R", 74.6, UNIT, README, "REINFORCE"),
    PaperNumber(
        "ImageNet, Pixel 1, 79 ms, Proxyless-G + LL",
        74.2,
        UNIT,
        README,
        "gradients, product",
    ),
    PaperNumber("ImageNet, Pixel 1, 83 ms, Proxyless-G without", 71.8, UNIT, README),
    PaperNumber(
        "ImageNet, Pixel 1, 75 ms, MobileNet-v2", 72.0, UNIT, README, "fastest paths, none skipped"
    ),
    PaperNumber("ImageNet, Pixel 1, 113 ms, MobileNet-v1", 70.6, UNIT, README),
)


def at_the_reference(r: Results) -> bool:
    """Networks of the gradients take no more than a tenth above what was aimed at."""
    rows = ("gradients, product", "gradients, sum")
    return all(r.mean(row, "milliseconds") <= 1.1 * r.mean(row, "reference") for row in rows)


def earns_more(better: str, worse: str) -> Contrast:
    """That one row has the higher reward, by 0.3 hundredths."""
    return Contrast((Term(better, "reward"), Term(worse, "reward", -1.0)), margin=0.003)


CLAIMS = (
    *(
        Claim(f"{name} earn more than random search", earns_more(name, "random search"))
        for name in ("gradients, product", "gradients, sum")
    ),
    Claim("REINFORCE earns more than random search", earns_more("REINFORCE", "random search")),
    Claim("gradients, product earn more than TPE", earns_more("gradients, product", "TPE")),
    Claim(
        "gradients, product earn more than the slowest paths",
        earns_more("gradients, product", "slowest paths"),
    ),
    Claim("the slowest paths are more accurate", more("slowest paths", "gradients, product")),
    Claim("gradients keep to the milliseconds aimed at", Fact(at_the_reference)),
)
