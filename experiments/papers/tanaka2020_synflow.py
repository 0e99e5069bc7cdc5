"""SynFlow, without data, against SNIP, GraSP and random masks: all pruned at initialisation.

Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving
synaptic flow", NeurIPS 2020, arXiv:2006.05467; GraSP: Wang, Zhang, Grosse, "Picking Winning Tickets
Before Training by Preserving Gradient Flow", ICLR 2020, arXiv:2002.07376.

    python -m experiments run tanaka2020_synflow

Cost: 64 trainings of about a minute on one core, those of SNIP and the static masks among them.
Expected: SynFlow leads at 98 %, where the others lose whole layers, and at 80 % they are close. The
1x1 convolutions are ranked as in the other tables; the rows of "all layers" rank every kernel, the
first, the depthwise and the last, as the papers do. GraSP's temperature is the paper's 200; in the
rows "at temperature 1" it was not.
"""

from experiments.recipes import dynamic, initial
from experiments.runs.table import Claim, PaperNumber, more
from experiments.settings.classify import ladder

TITLE = "Pruning without data (SynFlow), with SNIP and GraSP"

ROWS = (
    *ladder("synflow", initial.synflow),
    *ladder("snip", initial.snip),
    *ladder("grasp", initial.grasp),
    *ladder("grasp at temperature 1,", initial.grasp_at_temperature_1),
    *ladder("static", dynamic.static_random),
    *(
        row
        for name, recipe in (
            ("synflow", initial.synflow),
            ("snip", initial.snip),
            ("grasp", initial.grasp),
        )
        for row in ladder(f"{name}, all layers,", recipe, prunable=r"kernel$")
    ),
)

PAPER: tuple[PaperNumber, ...] = ()

CLAIMS = (
    Claim("SynFlow > SNIP at 98 %", more("synflow 98 %", "snip 98 %")),
    Claim("SynFlow > GraSP at 98 %", more("synflow 98 %", "grasp 98 %")),
    Claim("SynFlow > random at 98 %", more("synflow 98 %", "static 98 %")),
    Claim("GraSP > random at 90 %", more("grasp 90 %", "static 90 %")),
    Claim("GraSP's temperature helps at 90 %", more("grasp 90 %", "grasp at temperature 1, 90 %")),
)
