"""Activation maps made sparse by L1 and coded: base, sparse, and sparser at a cost.

Georgiadis, "Accelerating Convolutional Neural Networks via Activation Map Compression", CVPR 2019,
arXiv:1812.04056.

    python -m experiments run georgiadis2019_activation_maps

MobileNet-v1 of width 0.25 on Fashion-MNIST, trained for 3,000 steps and then for 1,000 more with L1
on the maps behind its ReLUs, all layers with one strength; the base goes on without it. Maps of 200
test images are quantized by layer to 16, 12, 8 and 4 bits and counted in each code. Cost: 3
trainings of 90 s, which the rows share, and 11 of 40 s on one core (an estimate). Expected: the
density falls to some 0.6 of the base's with an accuracy within 0.3 points, further where accuracy
may fall; the sparse-exponential-Golomb code takes fewer bits than zero-value compression and plain
exponential Golomb. None was run yet: the strengths are a guess.

The paper's text was not at hand: its formulas are remembered, and its column has what the abstract
says and no more. Its speed-ups are ratios of densities. ReLU6 has a spike at 6, where Huffman is
better than codes for tails.
"""

from experiments.runs.table import Claim, Contrast, PaperNumber, Row, Term, no_less
from experiments.settings.classify import Classify
from experiments.settings.sparse_maps import SparseMaps

TITLE = "Activation map compression"
STRENGTHS = {"base": 0.0, "sparse": 1e-5, "sparse_v2": 1e-4}
GRID = (3e-6, 3e-5)

ROWS = (
    *(Row(name, SparseMaps(alpha, Classify()), seeds=3) for name, alpha in STRENGTHS.items()),
    *(Row(f"strength {alpha:g}", SparseMaps(alpha, Classify())) for alpha in GRID),
)

ABSTRACT = "abstract"

PAPER = (
    PaperNumber("MobileNet-v1, CIFAR-10, sparse - base", 0.54, "points", ABSTRACT, "sparse"),
    PaperNumber("Inception-v3, ImageNet, sparse - base", 0.38, "points", ABSTRACT),
    PaperNumber("Inception-v3, ImageNet, sparse, by densities", 1.60, "x", ABSTRACT),
    PaperNumber("all at 16 bits, at most, against float32", 6, "x smaller", ABSTRACT),
)


def fewer(row: str, other: str, quantity: str, factor: float = 1.0) -> Contrast:
    """That one row has less of a quantity than `factor` times another's."""
    return Contrast((Term(other, quantity, factor), Term(row, quantity, -1.0)))


def beats(coder: str, other: str) -> Contrast:
    """That a code takes fewer bits than another for the 16-bit maps of "sparse"."""
    terms = (Term("sparse", f"{other}_16_bits"), Term("sparse", f"{coder}_16_bits", -1.0))
    return Contrast(terms)


CLAIMS = (
    Claim(
        "sparse is as good as the base with at most 0.75 of its nonzeros",
        no_less("sparse", "base"),
        fewer("sparse", "base", "density", 0.75),
    ),
    Claim("sparse_v2 is sparser still", fewer("sparse_v2", "sparse", "density")),
    Claim(
        "SEG beats zero-value compression and plain EG at 16 bits",
        beats("SEG", "ZVC"),
        beats("SEG", "EG"),
    ),
)
