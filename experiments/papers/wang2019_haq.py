"""HAQ: bits of each layer's weights and inputs at equal bytes, or equal modelled milliseconds.

Wang, Liu, Lin, Lin, Han, "HAQ: Hardware-Aware Automated Quantization with Mixed Precision", CVPR
2019, arXiv:1811.08886; the second part of Han et al., "Design Automation for Efficient Deep
Learning Computing", 2019, arXiv:1904.10616.

    python -m experiments run wang2019_haq

MobileNet-v1 x 0.25 on Fashion-MNIST, trained for 1,000 steps; 60 trials, each of which rounds
weights and inputs and tests 2,000 validation images; then 300 steps through the rounding for the
best. "Bytes" are those of the weights, as many as 3 bits take; "modelled" are milliseconds that a
model of an example FPGA gives, of no real device, as many as 4 bits take there: nothing was
measured. Uniform rows have the first and the last layer at 8 bits, and so many in all others. Cost:
the 3 trainings of `he2018_amc` and 21 of a minute on one core (an estimate). Expected: mixed bits
beat the same everywhere at equal cost.

The numbers are those of the authors' repository; the paper's table of MobileNet-v1 was not at hand.
"""

from experiments.papers.he2018_amc import README, TRAINED
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings.search_bits import SearchBits, fpga_milliseconds
from experiments.settings.searching import ddpg, random_search, tpe

TITLE = "HAQ: bits by a learned agent"
TABLE = {"costs": fpga_milliseconds, "limit": 0.5}

ROWS = (
    Row("bytes, uniform", SearchBits(None, TRAINED), seeds=3),
    Row("bytes, ddpg", SearchBits(ddpg, TRAINED), seeds=3),
    Row("bytes, tpe", SearchBits(tpe, TRAINED), seeds=3),
    Row("bytes, random", SearchBits(random_search, TRAINED), seeds=3),
    Row("modelled, uniform", SearchBits(None, TRAINED, **TABLE), seeds=3),
    Row("modelled, ddpg", SearchBits(ddpg, TRAINED, **TABLE), seeds=3),
    Row("modelled, random", SearchBits(random_search, TRAINED, **TABLE), seeds=3),
)

PAPER = (
    PaperNumber("MobileNet-v2, ImageNet, 8 bits", 72.05, "% top-1", README),
    PaperNumber("MobileNet-v2, ImageNet, 0.6 of the time", 71.23, "% top-1", README),
    PaperNumber("ResNet-50, ImageNet, float32", 76.15, "% top-1", README),
    PaperNumber("ResNet-50, ImageNet, 0.1 of the size", 75.48, "% top-1", README),
)

CLAIMS = (
    Claim("DDPG > the same bits everywhere, at equal bytes", more("bytes, ddpg", "bytes, uniform")),
    Claim("DDPG > random search at equal bytes", more("bytes, ddpg", "bytes, random")),
    Claim("DDPG is no worse than Optuna's TPE", no_less("bytes, ddpg", "bytes, tpe")),
    Claim(
        "DDPG > the same bits everywhere, at equal modelled milliseconds",
        more("modelled, ddpg", "modelled, uniform"),
    ),
)
