"""DeepPeep: what a network's execution tells of its blocks, and blocks that tell less.

Jha, Mittal, Kumar and Mattela, "DeepPeep: Exploiting Design Ramifications to Decipher the
Architecture of Compact DNNs", ACM JETC 2020, arXiv:2007.15248.

    python -m experiments run jha2020_deeppeep

144 small networks a seed, of eight families of blocks with three settings each on six random
skeletons, 16 x 16 pixels; a random forest tells the family, in cross-validation that keeps a
skeleton on one side. By chance that is right in 12.5 %, and a setting in 33 %. The attack sees
either the times of calls or what XLA's program says of itself. "compiled" networks run by
`sj.compile`, pruned ones have 90 % zeros; `transferred` is the accuracy of an attack that knows the
dense networks under jax.jit alone. Hardening trades the depthwise convolutions of a network of
separable blocks for groups of 2 to 16 channels; the headline is the confidence in the right family
that is lost within 1.25 times the multiply-adds.

The paper's text was not at hand. Two stages, families of compact blocks and Secure MobileNet-v1 are
in its abstract; our features, classifiers and substitutes are a reconstruction, on a CPU rather
than a GPU, and whether pruning or another compiler changes what leaks is our question, not the
paper's. Its latency is that of a GPU, where group convolutions were faster than depthwise ones: it
is not expected to hold here.

Cost: 8 minutes on one core for what the program tells, 30 for times, during which nothing else may
run, and 6 trainings of 90 s. Expected: the program tells more than times, pruning changes neither,
and a whole network that is one call tells nothing but its times.
"""

from experiments.models.compact import groups_of_4, groups_of_8
from experiments.runs.table import Claim, Contrast, PaperNumber, Row, Term, more, no_less
from experiments.settings.classify import Classify
from experiments.settings.leaks import Hardening, Leaks

TITLE = "DeepPeep: architectures by their execution"

ROWS = (
    Row("program, jit", Leaks("program"), 3),
    Row("program, jit, pruned", Leaks("program", sparsity=0.9), 3),
    Row("program, compiled", Leaks("program", compiled=True), 3),
    Row("program, compiled, pruned", Leaks("program", compiled=True, sparsity=0.9), 3),
    Row("times, jit", Leaks("times"), 3),
    Row("times, jit, pruned", Leaks("times", sparsity=0.9), 3),
    Row("times, compiled", Leaks("times", compiled=True), 3),
    Row("times, compiled, pruned", Leaks("times", compiled=True, sparsity=0.9), 3),
    Row("hardened, program", Hardening("program"), 3),
    Row("hardened, times", Hardening("times"), 3),
    Row("MobileNet-v1", Classify(), 3),
    Row("MobileNet-v1, groups of 4", Classify(net=groups_of_4), 3),
    Row("MobileNet-v1, groups of 8", Classify(net=groups_of_8), 3),
)

PAPER = (
    PaperNumber("Secure MobileNet-v1, latency, GPU", -60, "%, about", "abstract"),
    PaperNumber(
        "Secure MobileNet-v1, ImageNet, accuracy", 2, "points, about", "abstract",
        "MobileNet-v1, groups of 8",
    ),
)  # fmt: skip


def told(row: str) -> Contrast:
    """That an attack does better than chance by 10 points."""
    return Contrast((Term(row), Term(row, "chance", -1.0)), above=0.1)


def no_better_than_chance(row: str) -> Contrast:
    """That an attack is right no more often than by chance, and 5 points."""
    return Contrast((Term(row, "chance"), Term(row, None, -1.0)), above=-0.05)


CLAIMS = (
    Claim("the program tells the family", told("program, jit")),
    Claim("times tell the family", told("times, jit")),
    Claim("the program tells more than times", more("program, jit", "times, jit")),
    Claim(
        "groups hide what a program's blocks are, within the budget",
        Contrast((Term("hardened, program"),), above=0.05),
    ),
    Claim("secured, it is as accurate", no_less("MobileNet-v1, groups of 8", "MobileNet-v1")),
    Claim(
        "ours: pruning hides nothing of the program",
        no_less("program, jit, pruned", "program, jit", by=0.03),
    ),
    Claim("ours: compile hides a part", more("program, jit", "program, compiled")),
    Claim("ours: compile hides all", no_better_than_chance("program, compiled")),
    Claim("ours: compile does not hide times", told("times, compiled")),
)
