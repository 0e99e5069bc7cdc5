"""Our own tables: one protocol, every method at every allocation that it admits.

`docs/protocol.md` is the plan: what is compared, in what order, at what cost, and what was cut.
"""

import types
from collections.abc import Iterator
from dataclasses import replace

import sparsejax as sj
from experiments.data.full_size import fashion_mnist_32, fashion_mnist_32_validation
from experiments.models import networks
from experiments.recipes import Recipe, dynamic, elastic, magnitude, soft
from experiments.runs.table import Claim, Paper, Row, more
from experiments.settings.classify import Classify
from sparsejax.plans.leaf import Allocator

BATCH, TRAIN_IMAGES = 64, 54_000
EPOCHS, TUNING_EPOCHS = 12, 4
LONGER = (36, 100)  # epochs of the ladder, beside EPOCHS
NETS = {
    "mobilenet": ("MobileNet-v1 0.5", networks.mobilenet_v1_half_small, r"pointwise/kernel"),
    "resnet20": ("ResNet-20", networks.resnet20, r"blocks/.*kernel"),
}
CHOSEN_RATES = {"mobilenet": 0.2, "resnet20": 0.1}
"""By the validation images; ResNet-20's is not tuned yet."""
PERCENTS = {98: 5, 90: 5, 95: 3}
"""Seeds of each sparsity: five where claims are decided."""
RATES = (0.05, 0.1, 0.2)

UNIFORM, ERK = sj.allocate.uniform, sj.allocate.erk
METHODS: tuple[tuple[str, Recipe, Allocator], ...] = (
    ("gmp, ERK", magnitude.gmp, ERK),
    ("rigl, ERK", dynamic.rigl, ERK),
    ("ac/dc, global", soft.ac_dc, ERK),
    ("gmp, uniform", magnitude.gmp, UNIFORM),
    ("gmp, global", magnitude.global_mp, ERK),
    ("static, ERK", dynamic.static_random, ERK),
    ("set, ERK", dynamic.sparse_evolution, ERK),
    ("spartan, ERK", soft.spartan, ERK),
    ("pdp, global", soft.pdp, ERK),
    ("gap, ERK", elastic.gap, ERK),
    ("mest em&s, ERK", elastic.mest_ems, ERK),
    ("top-kast, ERK", soft.top_kast, ERK),
    ("movement, ERK", soft.movement, ERK),
    ("str, cut", soft.str_, ERK),
    ("rigl, uniform", dynamic.rigl, UNIFORM),
)
BASELINE = "gmp, ERK"
CLIMBING = (BASELINE, "ac/dc, global", "gap, ERK", "pdp, global", "str, cut", "rigl, ERK")

ABOUT = """{title}: all methods under one protocol.

This project's own table; uniform and ERK rows apart, after Evci et al., arXiv:1911.11134.

    python -m experiments run {name}

Fashion-MNIST at 32x32, 54,000 images to train, moved and mirrored, 6,000 to choose by, the 10,000
of the test looked at once; {epochs} epochs of 64, SGD with Nesterov's momentum 0.9 and L2 of 5e-4,
a cosine, no clipping. Cost: docs/protocol.md has the plan. Expected: nothing, the table decides.
"""


def sgd(net: str, method: Recipe = magnitude.dense, sparsity: float = 0.0) -> Classify:
    """A training of the main block."""
    _, make, prunable = NETS[net]
    return Classify(
        method,
        sparsity,
        net=make,
        data=fashion_mnist_32,
        prunable=prunable,
        steps=EPOCHS * TRAIN_IMAGES // BATCH,
        batch_size=BATCH,
        learning_rate=CHOSEN_RATES[net],
        momentum=0.9,
        weight_decay=5e-4,
        clip_norm=float("inf"),
    )


def grid(net: str, percent: int) -> Paper:
    """Dense and all methods at one sparsity, each against GMP."""
    seeds = PERCENTS[percent]
    settings = {
        name: replace(sgd(net, recipe, percent / 100), allocate=allocate)
        for name, recipe, allocate in METHODS
    }
    rows = [Row(f"{name} {percent} %", setting, seeds) for name, setting in settings.items()]
    claims = tuple(
        Claim(f"{name} > {BASELINE}", more(f"{name} {percent} %", f"{BASELINE} {percent} %"))
        for name in settings
        if name != BASELINE
    )
    title = f"Grid: {NETS[net][0]} at {percent} %"
    return _paper(f"grid_{net}_{percent}", title, (Row("dense", sgd(net), seeds), *rows), claims)


def ladder(net: str, percent: int) -> Paper:
    """Whether longer training closes the gaps: dense and six methods for more epochs."""
    settings = {"dense": sgd(net)} | {
        f"{name} {percent} %": replace(sgd(net, recipe, percent / 100), allocate=allocate)
        for name, recipe, allocate in METHODS
        if name in CLIMBING
    }
    rows = tuple(
        Row(f"{name}, {epochs} epochs", replace(setting, steps=epochs * setting.steps // EPOCHS), 3)
        for epochs in (EPOCHS, *LONGER)
        for name, setting in settings.items()
    )
    title = f"Lengths: {NETS[net][0]} at {percent} %"
    lengths = ", ".join(map(str, (EPOCHS, *LONGER)))
    return _paper(f"ladder_{net}_{percent}", title, rows, (), lengths)


def tuning(net: str) -> Paper:
    """The rates among which the dense network chooses, by the validation images."""
    short = replace(
        sgd(net),
        data=fashion_mnist_32_validation,
        steps=TUNING_EPOCHS * TRAIN_IMAGES // BATCH,
    )
    rows = tuple(Row(f"dense, {rate:g}", replace(short, learning_rate=rate)) for rate in RATES)
    return _paper(f"tune_{net}", f"Rates: {NETS[net][0]}", rows, (), TUNING_EPOCHS)


def _paper(
    name: str,
    title: str,
    rows: tuple[Row, ...],
    claims: tuple[Claim, ...],
    epochs: int | str = EPOCHS,
) -> Paper:
    about = ABOUT.format(title=title, name=name, epochs=epochs)
    return types.SimpleNamespace(  # type: ignore[return-value]
        __name__=name, __doc__=about, TITLE=title, ROWS=rows, PAPER=(), CLAIMS=claims
    )


def _all() -> Iterator[Paper]:
    yield from (tuning(net) for net in NETS)
    yield from (grid(net, percent) for net in NETS for percent in PERCENTS)
    yield ladder("mobilenet", 98)


GRIDS: tuple[Paper, ...] = tuple(_all())
