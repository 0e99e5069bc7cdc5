"""MEST: elastic mutation with and without the soft memory bound, against SET and RigL.

Yuan, Ma, Niu et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the
Edge", NeurIPS 2021, arXiv:2110.14032.

    python -m experiments run yuan2021_mest

Cost: 32 trainings of about a minute on one core, those of SET and RigL among them. Expected: EM&S,
which trains with half as many weights more until 56 % of the steps, beats EM, and more so at 98 %;
EM, whose mutation ratio decays, is no worse than SET.
"""

from experiments.classify import ladder
from experiments.recipes import dynamic, elastic
from experiments.table import Claim, PaperNumber, Row

TITLE = "Memory-economic sparse training (MEST)"

ROWS: tuple[Row, ...] = (
    *ladder("mest em", elastic.mest_em),
    *ladder("mest em&s", elastic.mest_ems),
    *ladder("set", dynamic.sparse_evolution),
    *ladder("rigl", dynamic.rigl),
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim("EM&S > EM at 90 %", lambda r: r.mean("mest em&s 90 %") > r.mean("mest em 90 %")),
    Claim("EM&S > EM at 98 %", lambda r: r.mean("mest em&s 98 %") > r.mean("mest em 98 %")),
    Claim("EM >= SET at 98 %", lambda r: r.mean("mest em 98 %") >= r.mean("set 98 %")),
    Claim("EM&S > RigL at 98 %", lambda r: r.mean("mest em&s 98 %") > r.mean("rigl 98 %")),
)
