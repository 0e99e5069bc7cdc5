"""Sanity checks for lottery tickets: ticket, random re-initialisation, prune and retrain.

Ma, Yuan et al., "Sanity Checks for Lottery Tickets: Does Your Winning Ticket Really Win the
Jackpot?", NeurIPS 2021, arXiv:2107.00166.

    python -m experiments run ma2021_sanity_checks

ResNet-20 on Fashion-MNIST at 14x14, 1,500 steps of 64 with SGD, pruned to 90 % of the residual
blocks' weights at once (OMP), and for one seed in four rounds (IMP). Cost: 40 trainings of two
minutes on one core; the dense training is shared. Expected: at the small learning
rate the ticket beats new weights, and its masks mark what was large from the start; at the large
one they are equal, and the dense net is the better one: no jackpot.

Found: the other way round. A likely reason: a ticket's weights are the largest of the initial ones,
about twice the size of a fresh draw, and before batch norm a weight of twice the size learns a
quarter as fast. At 0.01 our few steps are then too few for the ticket; at 0.1 slower is better.
"""

from experiments.data.half_size import fashion_mnist_14
from experiments.models import networks
from experiments.recipes import Recipe, momentum
from experiments.runs.table import Claim, PaperNumber, Results, Row
from experiments.settings.classify import Classify
from experiments.settings.tickets import Start, Tickets, original, pruned, random_weights
from sparsejax.studies import jackpot

TITLE = "Sanity checks for lottery tickets"
STARTS = {"ticket": original, "re-initialised": random_weights, "retrained": pruned}
RATES = {"lr 0.1": momentum.sgd_large, "lr 0.01": momentum.sgd_small}


def _setting(start: Start, recipe: Recipe, rounds: int = 1) -> Tickets:
    training = Classify(
        recipe,
        net=networks.resnet20,
        data=fashion_mnist_14,
        prunable=r"blocks/.*kernel",
        steps=1500,
    )
    return Tickets(start, training, rounds=rounds)


ROWS = tuple(
    Row(f"{rate}, {name}", _setting(start, recipe), seeds=3)
    for rate, recipe in RATES.items()
    for name, start in STARTS.items()
) + tuple(
    Row(f"{rate}, {name} of 4 rounds", _setting(STARTS[name], recipe, rounds=4))
    for rate, recipe in RATES.items()
    for name in ("ticket", "re-initialised")
)

PAPER = (
    PaperNumber(
        "ResNet-20, CIFAR-10, dense, lr 0.1 (best)", 92.53, "% top-1", "official repository's files"
    ),
)


def no_jackpot(r: Results, rate: str) -> bool | None:
    """By `sparsejax.studies.jackpot`, against dense nets trained at the large learning rate."""
    rows = (f"{rate}, ticket", None), (f"{rate}, re-initialised", None)
    rows += (("lr 0.1, retrained", "accuracy_dense"),)
    accuracies = [[100 * value for value in r.values(*row)] for row in rows]
    if min(map(len, accuracies)) < 2:
        return None
    return jackpot(*accuracies).verdict != "jackpot"


def _gain(r: Results, rate: str) -> float:
    return r.mean(f"{rate}, ticket") - r.mean(f"{rate}, re-initialised")


CLAIMS = (
    Claim("no jackpot at lr 0.1", lambda r: no_jackpot(r, "lr 0.1")),
    Claim("no jackpot at lr 0.01", lambda r: no_jackpot(r, "lr 0.01")),
    Claim(
        "the ticket's lead over new weights is larger at lr 0.01",
        lambda r: _gain(r, "lr 0.01") > _gain(r, "lr 0.1"),
    ),
    Claim(
        "large weights stay large at lr 0.01: more overlap of initial and trained",
        lambda r: r.mean("lr 0.01, ticket", "overlap") > r.mean("lr 0.1, ticket", "overlap"),
    ),
    Claim(
        "prune and retrain is best at lr 0.1",
        lambda r: r.mean("lr 0.1, retrained") >= r.mean("lr 0.1, ticket"),
    ),
)
