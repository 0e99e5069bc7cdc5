"""Budgets in milliseconds: a planned spread of sparsities against uniform and ERK at equal times.

This project's own table; plans by a latency table and a knapsack after Shen, Yin, Molchanov, Mao,
Liu and Alvarez, "Structural Pruning via Latency-Saliency Knapsack", 2022, arXiv:2210.06659, theirs
of channels, ours of single weights.

    python -m experiments run budgets

MobileNet-v1 of width 0.25 on Fashion-MNIST, trained for 1,500 steps, then pruned gradually in 1,000
more. Its 1x1 convolutions may take what is left of 70, 60 or 56 % of the dense network's
milliseconds on 16 images, of which 46 % are not theirs, by times of the compiled layers measured
once on the machine that the file of measured times names. Uniform and ERK take the lowest sparsity
that is fast enough; plans lose the least energy of weights, or the least error of layers' outputs
on 64 training images.

Cost: 3 pre-trainings of 40 s, shared with R2, and 39 trainings of 30 s on one core. Expected: plans
are no worse than either, and better where there is little time.
"""

from experiments.runs.table import Claim, Fact, Results, Row, more
from experiments.settings import within_milliseconds
from experiments.settings.within_milliseconds import WithinMilliseconds

TITLE = "Budgets in milliseconds"

SPREADS = {
    "planned by energy": within_milliseconds.planned,
    "planned by outputs": within_milliseconds.planned_by_outputs,
    "uniform": within_milliseconds.uniform,
    "ERK": within_milliseconds.erk,
}
PERCENTS = (70, 60, 56)
ROWS = (
    Row("dense", WithinMilliseconds(within_milliseconds.unpruned), 3),
    *(
        Row(f"{name}, {percent} %", WithinMilliseconds(spread, percent / 100), 3)
        for percent in PERCENTS
        for name, spread in SPREADS.items()
    ),
)
PAPER = ()


def within(r: Results) -> bool:
    """No row takes more milliseconds than it is allowed, nor less than 95 % of them."""
    names = [f"{name}, {percent} %" for percent in PERCENTS for name in SPREADS]
    parts = [r.mean(name, "milliseconds") / r.mean(name, "target") for name in names]
    return max(parts) <= 1.0 + 1e-9 and min(parts) >= 0.95


CLAIMS = (
    *(
        Claim(
            f"{plan} > {other} at {percent} %",
            more(f"{plan}, {percent} %", f"{other}, {percent} %"),
        )
        for percent in PERCENTS
        for plan in ("planned by energy", "planned by outputs")
        for other in ("uniform", "ERK")
    ),
    Claim("all take the milliseconds that they are allowed", Fact(within)),
)
