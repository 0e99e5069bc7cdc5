"""MEST: elastic mutation with and without the soft memory bound, against SET and RigL.

Yuan, Ma, Niu et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the
Edge", NeurIPS 2021, arXiv:2110.14032.

    python -m experiments run yuan2021_mest

Cost: 32 trainings of about a minute on one core, those of SET and RigL among them, and 4 of two
minutes. Expected: EM&S, which trains with half as many weights more until 56 % of the steps, beats
EM, and more so at 98 %; EM, whose mutation ratio decays, is no worse than SET. The sparsity schemes
are compared on ResNet-20 at 14x14 pixels, whose 3x3 kernels the patterns need: the finer the
scheme, the better.
"""

import sparsejax as sj
from experiments import networks
from experiments.classify import Classify, ladder
from experiments.half_size import fashion_mnist_14
from experiments.recipes import dynamic, elastic
from experiments.table import Claim, PaperNumber, Row

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
        allocate=sj.uniform,
        steps=1_000,
    )


ROWS: tuple[Row, ...] = (
    *ladder("mest em", elastic.mest_em),
    *ladder("mest em&s", elastic.mest_ems),
    *ladder("set", dynamic.sparse_evolution),
    *ladder("rigl", dynamic.rigl),
    *(Row(f"ResNet-20, {name}", _scheme(pattern)) for name, pattern in SCHEMES.items()),
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim("EM&S > EM at 90 %", lambda r: r.mean("mest em&s 90 %") > r.mean("mest em 90 %")),
    Claim("EM&S > EM at 98 %", lambda r: r.mean("mest em&s 98 %") > r.mean("mest em 98 %")),
    Claim("EM >= SET at 98 %", lambda r: r.mean("mest em 98 %") >= r.mean("set 98 %")),
    Claim("EM&S > RigL at 98 %", lambda r: r.mean("mest em&s 98 %") > r.mean("rigl 98 %")),
    Claim(
        "patterns > channels",
        lambda r: r.mean("ResNet-20, pattern") > r.mean("ResNet-20, channel"),
    ),
    Claim(
        "4x1 blocks > channels",
        lambda r: r.mean("ResNet-20, 4x1 blocks") > r.mean("ResNet-20, channel"),
    ),
)
