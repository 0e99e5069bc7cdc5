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
from experiments.runs.table import MARGIN, Claim, Contrast, PaperNumber, Row, Term, more, no_less
from experiments.settings.classify import Classify
from experiments.settings.tickets import Start, Tickets, original, pruned, random_weights

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


def no_jackpot(rate: str) -> tuple[Contrast, ...]:
    """No ticket is one if new weights do as well, or if dense nets at the large rate do better."""
    dense = Term("lr 0.1, retrained", "accuracy_dense")
    return (
        no_less(f"{rate}, re-initialised", f"{rate}, ticket"),
        Contrast((dense, Term(f"{rate}, ticket", None, -1.0)), margin=MARGIN),
    )


CLAIMS = (
    Claim("no jackpot at lr 0.1", *no_jackpot("lr 0.1"), any_of=True),
    Claim("no jackpot at lr 0.01", *no_jackpot("lr 0.01"), any_of=True),
    Claim(
        "the ticket's lead over new weights is larger at lr 0.01",
        Contrast(
            (
                Term("lr 0.01, ticket"),
                Term("lr 0.01, re-initialised", None, -1.0),
                Term("lr 0.1, ticket", None, -1.0),
                Term("lr 0.1, re-initialised"),
            ),
            margin=MARGIN,
        ),
    ),
    Claim(
        "large weights stay large at lr 0.01: more overlap of initial and trained",
        more("lr 0.01, ticket", "lr 0.1, ticket", "overlap"),
    ),
    Claim("prune and retrain is best at lr 0.1", no_less("lr 0.1, retrained", "lr 0.1, ticket")),
)
