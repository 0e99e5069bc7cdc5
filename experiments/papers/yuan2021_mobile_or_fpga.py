"""Mobile or FPGA: bits, blocks and sparsities for two devices that models stand for.

Yuan et al., "Work in Progress: Mobile or FPGA? A Comprehensive Evaluation on Energy Efficiency and
a Unified Optimization Framework", 2021, arXiv:2106.09166.

    python -m experiments run yuan2021_mobile_or_fpga

MobileNet-v1 x 0.25 on Fashion-MNIST, trained for 1,000 steps. Rows of blocks: 80 % of the 1x1
convolutions' weights go, at 8 bits, in groups of 1, 4, 8 or 16 outputs with one index each. Rows of
searches: 24 trials of bits, group and three sparsities, each tuned for 30 steps, for the accuracy
at 0.35 of the joules of 8 dense bits. Cost: the 3 trainings of `he2018_amc` and 24 of a minute on
one core (an estimate). Expected: small groups are nearly as accurate as single weights and cheaper;
a device whose arithmetic is narrow gets fewer bits.

A reconstruction from the abstract, which has no number. Seconds and joules are what models of two
example devices give, of no real product, with energies per operation remembered from Horowitz
(ISSCC 2014): nothing was measured on a phone or an FPGA. Joules of this machine are in the records
where its counters can be read, else null.
"""

from experiments.papers.he2018_amc import TRAINED
from experiments.runs.table import Claim, Contrast, PaperNumber, Row, Term, more, no_less
from experiments.settings.search_blocks import Blocks, SearchBlocks
from experiments.settings.searching import random_search, tpe
from sparsejax.search import example_fpga

TITLE = "Mobile or FPGA: bits, blocks and sparsity by models of devices"


def group(rows: int) -> Row:
    """80 % in groups of so many outputs, at 8 bits."""
    fixed = Blocks(8, rows, 0.8, 0.8, 0.8)
    return Row(f"groups of {rows}", SearchBlocks(None, TRAINED, fixed=fixed), seeds=3)


ROWS = (
    *(group(rows) for rows in (1, 4, 8, 16)),
    Row("tpe, example_mobile", SearchBlocks(tpe, TRAINED), seeds=3),
    Row("random, example_mobile", SearchBlocks(random_search, TRAINED), seeds=3),
    Row("tpe, example_fpga", SearchBlocks(tpe, TRAINED, example_fpga), seeds=3),
    Row("random, example_fpga", SearchBlocks(random_search, TRAINED, example_fpga), seeds=3),
)

PAPER: tuple[PaperNumber, ...] = ()


def less(row: str, other: str, quantity: str) -> Contrast:
    """That one row has less of a quantity than another."""
    return Contrast((Term(other, quantity), Term(row, quantity, -1.0)))


CLAIMS = (
    Claim(
        "groups of 4 are as accurate as single weights, within a point",
        no_less("groups of 4", "groups of 1", by=0.01),
    ),
    Claim(
        "and take less time on the example phone, by its model",
        less("groups of 4", "groups of 1", "modelled_seconds_mobile"),
    ),
    Claim("groups of 16 lose accuracy against groups of 4", more("groups of 4", "groups of 16")),
    Claim("TPE > random search on the example phone", more(*(row.name for row in ROWS[4:6]))),
    Claim("TPE > random search on the example FPGA", more(*(row.name for row in ROWS[6:8]))),
    Claim(
        "the example FPGA gets fewer bits than the example phone",
        less("tpe, example_fpga", "tpe, example_mobile", "bits"),
    ),
)
