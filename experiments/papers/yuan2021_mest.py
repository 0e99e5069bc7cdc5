"""MEST: elastic mutation with and without the soft memory bound, against SET and RigL.

Yuan, Ma, Niu et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the
Edge", NeurIPS 2021, arXiv:2110.14032.

    python -m experiments run yuan2021_mest

Cost: 32 trainings of about a minute and a half on one core, those of SET and RigL among them, 4 of
two minutes and 12 of one. Expected: EM&S, which trains with half as many weights more until 56 % of
the steps, beats EM, and more so at 98 %; EM, whose mutation ratio decays, is no worse than SET. The
sparsity schemes are compared on ResNet-20 at 14x14 pixels, whose 3x3 kernels the patterns need: the
finer the scheme, the better. Data efficiency is tried on 9,600 images, so that there are epochs to
count over: 16 of them, after 7 the 24 % least forgotten are left out; that should cost no more than
leaving out as many at random, and hardly anything. At 98 % and one seed EM came to 76.7 % from the
largest initial weights, as in the paper, and to 78.7 % from random ones, as SET starts (79.6 %); a
mutation every 1 % of the steps instead of 3 % changed nothing.
"""

import sparsejax as sj
from experiments.data.half_size import fashion_mnist_14
from experiments.models import networks
from experiments.recipes import dynamic, elastic
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings.classify import Classify, ladder
from experiments.settings.fewer_examples import (
    FewerExamples,
    any_others,
    fashion_mnist_9600,
    most_forgotten,
)

TITLE = "Memory-economic sparse training (MEST)"

SCHEMES: dict[str, sj.Pattern] = {
    "unstructured": sj.Unstructured(),
    "pattern": sj.KernelPattern(),
    "4x1 blocks": sj.Block(4, 1),
    "channel": sj.Channel(),
}


def _scheme(pattern: sj.Pattern) -> Classify:
    """EM&S at 90 % of the residual blocks, the same in each layer as in the paper."""
    return Classify(
        elastic.mest_ems,
        0.9,
        net=networks.resnet20,
        data=fashion_mnist_14,
        prunable=r"blocks/.*conv[12]/kernel",
        pattern=pattern,
        allocate=sj.allocate.uniform,
        steps=1_000,
    )


def _on_9600(steps: int) -> Classify:
    """EM&S at 90 % on 9,600 images."""
    return Classify(elastic.mest_ems, 0.9, data=fashion_mnist_9600, steps=steps)


EPOCHS_16 = 16 * 150
SHORTER = 7 * 150 + 9 * 114  # seven epochs of all and nine of what is left, in steps of 64

ROWS: tuple[Row, ...] = (
    *ladder("mest em", elastic.mest_em),
    *ladder("mest em&s", elastic.mest_ems),
    *ladder("set", dynamic.sparse_evolution),
    *ladder("rigl", dynamic.rigl),
    *(Row(f"ResNet-20, {name}", _scheme(pattern)) for name, pattern in SCHEMES.items()),
    Row("all examples, 16 epochs", _on_9600(EPOCHS_16), seeds=3),
    Row("all examples, as many steps as below", _on_9600(SHORTER), seeds=3),
    Row("24 % least forgotten out", FewerExamples(_on_9600(SHORTER), most_forgotten), seeds=3),
    Row("24 % at random out", FewerExamples(_on_9600(SHORTER), any_others), seeds=3),
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim("EM&S > EM at 90 %", more("mest em&s 90 %", "mest em 90 %")),
    Claim("EM&S > EM at 98 %", more("mest em&s 98 %", "mest em 98 %")),
    Claim("EM >= SET at 98 %", no_less("mest em 98 %", "set 98 %")),
    Claim("EM&S > RigL at 98 %", more("mest em&s 98 %", "rigl 98 %")),
    Claim("patterns > channels", more("ResNet-20, pattern", "ResNet-20, channel")),
    Claim(
        "the least forgotten out >= as many at random out",
        no_less("24 % least forgotten out", "24 % at random out"),
    ),
    Claim(
        "the least forgotten out: within half a point of all examples",
        no_less("24 % least forgotten out", "all examples, 16 epochs", by=0.005),
    ),
    Claim("4x1 blocks > channels", more("ResNet-20, 4x1 blocks", "ResNet-20, channel")),
)
