"""FedPer: personal layers for clients that know few classes, against FedAvg and training alone.

Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization Layers", 2019,
arXiv:1912.00818.

    python -m experiments run arivazhagan2019_fedper

MobileNet-v1 x 0.25 on 20,000 images of Fashion-MNIST, ten clients of k classes each, all of them in
each of 20 rounds of one epoch (SGD, batches of 32). K_P = 1 keeps the classifier at home, each
further one the last block of what is left. What counts is the mean of the clients' accuracies on
their own test images, 17 % of what they have. Cost: 51 trainings of about three minutes on one core
(an estimate). Expected: personal layers help, more so the fewer classes a client has; how many of
them are personal matters little.

The paper's text was not at hand: the algorithm is a reconstruction that agrees with Flower's
baseline, and the numbers in the first columns are Flower's, read off its plots (within a point),
since the paper has figures and no table. The rows that send the top 10 % and 1 % of the changes are
ours.
"""

from experiments.runs.table import (
    Claim,
    Contrast,
    Fact,
    PaperNumber,
    Results,
    Row,
    Term,
    more,
    no_less,
)
from experiments.settings.federation import Federation

TITLE = "Federated learning with personalization layers (FedPer)"
CLASSES = (2, 4, 10)
LAYERS = (r"^head/", r"^blocks/12/", r"^blocks/11/")
PERSONAL = {
    "FedAvg": (),
    "FedPer 1": LAYERS[:1],
    "FedPer 2": LAYERS[:2],
    "FedPer 3": LAYERS,
    "local only": ("",),
}

ROWS = tuple(
    Row(f"k = {k}, {name}", Federation(personal, k), seeds=3)
    for k in CLASSES
    for name, personal in PERSONAL.items()
) + tuple(
    Row(
        f"k = 4, FedPer 1, top {percent} %",
        Federation(LAYERS[:1], 4, unsent=1 - percent / 100),
        seeds=3,
    )
    for percent in (10, 1)
)

FLOWER = "not the paper's: Flower's baseline, read off its plot"
UNIT = "% mean local top-1"
NET = "MobileNet-v1, CIFAR-10"

PAPER = (
    PaperNumber(f"{NET}, k = 4, FedAvg, round 50", 68, UNIT, FLOWER, "k = 4, FedAvg"),
    PaperNumber(f"{NET}, k = 4, K_P = 2, round 50", 91.5, UNIT, FLOWER, "k = 4, FedPer 2"),
    PaperNumber(f"{NET}, k = 8, FedAvg, round 50", 80.5, UNIT, FLOWER),
    PaperNumber(f"{NET}, k = 8, K_P = 2, round 50", 84, UNIT, FLOWER),
    PaperNumber(f"{NET}, k = 10, FedAvg, round 50", 83, UNIT, FLOWER, "k = 10, FedAvg"),
    PaperNumber(f"{NET}, k = 10, K_P = 2, round 50", 83, UNIT, FLOWER, "k = 10, FedPer 2"),
    PaperNumber(f"{NET}, k = 4, FedAvg, round 25", 57, UNIT, FLOWER),
    PaperNumber(f"{NET}, k = 4, K_P = 2, round 25", 89.5, UNIT, FLOWER),
    PaperNumber(f"{NET}, k = 4, K_P = 3, round 25", 88.5, UNIT, FLOWER, "k = 4, FedPer 3"),
)


def gain(k: int, sign: float) -> tuple[Term, Term]:
    """What FedPer with the classifier at home has over FedAvg."""
    return Term(f"k = {k}, FedPer 1", None, sign), Term(f"k = {k}, FedAvg", None, -sign)


def a_fifth_of_the_bytes(r: Results) -> bool:
    """Of what clients send, with the top 10 % of the changes."""
    sparse = r.mean("k = 4, FedPer 1, top 10 %", "bytes_up")
    return sparse <= r.mean("k = 4, FedPer 1", "bytes_up") / 5


CLAIMS = (
    *(
        Claim(f"FedPer > FedAvg at k = {k}", more(f"k = {k}, FedPer 1", f"k = {k}, FedAvg"))
        for k in (2, 4)
    ),
    Claim(
        "the fewer classes, the larger the gain",
        Contrast((*gain(2, 1.0), *gain(4, -1.0))),
        Contrast((*gain(4, 1.0), *gain(10, -1.0))),
    ),
    Claim(
        "at k = 4 the third personal part costs less than personal layers gain",
        Contrast(
            (
                Term("k = 4, FedPer 3", None, 2.0),
                Term("k = 4, FedPer 1", None, -1.0),
                Term("k = 4, FedAvg", None, -1.0),
            )
        ),
    ),
    Claim("a common base > local only at k = 10", more("k = 10, FedPer 1", "k = 10, local only")),
    Claim(
        "the top 10 % of the changes are enough, within a point",
        no_less("k = 4, FedPer 1, top 10 %", "k = 4, FedPer 1", by=0.01),
    ),
    Claim("at a fifth of the bytes that clients send", Fact(a_fifth_of_the_bytes)),
)
