"""R2: penalties on the range of weights in pre-training, for the quantization that comes after.

Kundu, Yoo, Mishra, Cho, Adya, "R2 Loss: Range Restriction Loss for Model Compression and
Quantization", 2023, arXiv:2303.08253.

    python -m experiments run kundu2023_r2

A dense training of 1,500 steps with no penalty, each of R2's three or KURE; then, on the 1x1
convolutions: 2-bit post-training quantization (the weights stay, batch norm settles in 100
batches), 2-bit quantization aware training and DKM with one and two bits, 500 steps each.
Activations stay in float32 but for those of PACT.

Cost: half an hour on one core: 13 pre-trainings of 40 s, shared by the rows, and 58 short trainings
of 15 to 25 s. Expected: the penalties cost the dense network nothing, max|w| / std falls, and the
coarser the grid the more they help; with EWGS the paper itself has cells that are better without.

These networks have no outliers, max|w| / std is 3.8 without a penalty: what the penalties do where
there are some is not tested here. KURE has the strength of the others, which nobody tuned for it.
"""

from typing import Any

from experiments.models import networks
from experiments.recipes import Recipe, quantized
from experiments.recipes.magnitude import dense
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress, distinct_values

TITLE = "R2: range restriction before quantization"
ABSTRACT, LISTED = "abstract, version 2", "Papers with Code's table of results"
ARXIV = "abstract on arXiv"

PENALTIES: dict[str, Recipe] = {
    "no penalty": dense,
    "L-inf": quantized.with_linf,
    "margin": quantized.with_margin,
    "soft-min-max": quantized.with_soft_min_max,
    "KURE": quantized.with_kure,
}
AFTER_TRAINING: dict[str, Recipe] = {
    "PTQ symmetric W2": quantized.symmetric_2_bits,
    "PTQ asymmetric W2": quantized.asymmetric_2_bits,
}
MAIN: dict[str, Recipe] = {
    "LSQ W2": quantized.lsq_2_bits,
    "DKM 1 bit": quantized.dkm_1_bit,
}
MORE: dict[str, Recipe] = {
    "DoReFa W2": quantized.dorefa_2_bits,
    "EWGS W2": quantized.ewgs_2_bits,
    "DKM 2 bits": quantized.dkm_2_bits,
}


def pretraining(method: Recipe, **options: Any) -> Classify:
    """Half of the common budget."""
    return Classify(method, steps=1_500, **options)


def _pact(penalty: str) -> Row:
    """DoReFa weights of 2 bits and PACT activations of 2 bits, which learn their limits before."""
    before = pretraining(PENALTIES[penalty], net=networks.mobilenet_v1_quarter_pact)
    after = networks.mobilenet_v1_quarter_pact_2_bits
    setting = Compress(
        quantized.dorefa_2_bits, before, steps=500, net=after, account=distinct_values
    )
    return Row(f"PACT W2 A2, {penalty}", setting)


def _rows(methods: dict[str, Recipe], seeds: int, **options: Any) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"{name}, {penalty}",
            Compress(method, pretraining(before), account=distinct_values, **options),
            seeds,
        )
        for name, method in methods.items()
        for penalty, before in PENALTIES.items()
    )


ROWS = (
    *_rows(AFTER_TRAINING, 2, steps=100, learning_rate=0.0),
    *_rows(MAIN, 2, steps=500),
    *_rows(MORE, 1, steps=500),
    *map(_pact, ("no penalty", "L-inf", "margin")),
)

PAPER = (
    PaperNumber("MobileNet-v2, ImageNet, PTQ W2 A8, without R2", 50.66, "% top-1", ABSTRACT),
    PaperNumber("MobileNet-v2, ImageNet, PTQ W2 A8, with R2", 59.49, "% top-1", ABSTRACT),
    PaperNumber("MobileNet-v1, ImageNet, QAT W2 A2, without R2", 55.96, "% top-1", ABSTRACT),
    PaperNumber("MobileNet-v1, ImageNet, QAT W2 A2, with R2", 59.05, "% top-1", ABSTRACT),
    PaperNumber("ResNet-18, ImageNet, DKM 1 bit, without R2", 45.54, "% top-1", ARXIV),
    PaperNumber("ResNet-18, ImageNet, DKM 1 bit, with R2", 52.58, "% top-1", ARXIV),
    PaperNumber("ResNet-18, ImageNet, DKM 1 bit, with R2", 59.7, "% top-1", LISTED),
    PaperNumber("ResNet-18, ImageNet, PACT W2 A4, with R2", 68.45, "% top-1", LISTED),
)


def _helps(method: str) -> Claim:
    return Claim(
        f"{method}: the best of the three penalties > no penalty",
        *(more(f"{method}, {name}", f"{method}, no penalty") for name in RANGE),
        any_of=True,
    )


def _before(penalty: str) -> str:
    """A row that says what the pre-training with a penalty ended with."""
    return f"PTQ symmetric W2, {penalty}"


RANGE = ("L-inf", "margin", "soft-min-max")
CLAIMS = (
    Claim(
        "each of the three penalties lowers max|w| / std of the dense network",
        *(more(_before("no penalty"), _before(name), "reach_before") for name in RANGE),
    ),
    Claim(
        "none of the three hurts the dense network: within a point of no penalty",
        *(
            no_less(_before(name), _before("no penalty"), "accuracy_before", by=0.01)
            for name in RANGE
        ),
    ),
    *map(_helps, ("PTQ symmetric W2", "PTQ asymmetric W2", "LSQ W2", "DKM 1 bit")),
    Claim(
        "soft-min-max is the one for DKM at 1 bit: no worse than L-inf",
        no_less("DKM 1 bit, soft-min-max", "DKM 1 bit, L-inf"),
    ),
)
