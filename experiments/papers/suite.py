"""The papers whose tables we run, and how to add one.

    python -m experiments list
    python -m experiments run zhu2017_gmp [--smoke] [--seeds N] [--jobs N]
    python -m experiments table

A paper is a file `<author><year>_<method>.py` here, with a docstring (citation, command, cost, what
to expect) and `TITLE`, `ROWS`, `PAPER`, `CLAIMS` as in `experiments.runs.table`; it stands in
`PAPERS` below. Its rows are settings. For an image classifier that is
`Classify(recipe, sparsity, ...)` of `experiments.settings.classify`, or its
`ladder("name", recipe)` of four sparsities; a recipe is a function in
`experiments/recipes/<family>.py`, see there. Anything else is a frozen dataclass of your own with
`headline`, `label` and `run(job) -> dict`, in a file of `experiments/settings/`.

A claim is `Claim(text, more("a", "b"))`, with `no_less` or a `Contrast` of any means, and is judged
as `experiments.runs.verdicts` says. `grids.py` has our own tables, docs/protocol.md is their plan.

Records are in `experiments/results/<setting>/seed<N>.json`: equal settings of two papers share
them, and what is there is not run again. Locks, checkpoints and smoke runs are in
`build/experiments`. A killed run goes on from its last checkpoint with the same command. Any number
of `run` processes may work at the same time, on this machine, each takes what nobody else has.
"""

from experiments.papers import (
    arivazhagan2019_fedper,
    budgets,
    cai2019_proxylessnas,
    cho2023_pdp,
    elsen2020_fast_sparse_convnets,
    evci2020_rigl,
    fan2024_scalekd,
    frantar2023_sparse_gpt,
    georgiadis2019_activation_maps,
    gupta2022_fastgrnn,
    gupta2022_global_mp,
    he2018_amc,
    jayakumar2021_top_kast,
    jha2020_deeppeep,
    jha2020_e2gc,
    kundu2023_r2,
    kusupati2020_str,
    lee2019_snip,
    lin2021_unification,
    lubana2021_gradient_flow,
    ma2021_sanity_checks,
    ma2022_gap,
    niu2021_canao,
    niu2021_grim,
    peste2021_ac_dc,
    saini2020_ulsam,
    sanh2020_movement,
    sun2023_wanda,
    tai2022_spartan,
    tanaka2020_synflow,
    wang2019_haq,
    xu2023_sparsebytenn,
    yuan2021_mest,
    yuan2021_mobile_or_fpga,
    zhao2021_neural_pruning_search,
    zhou2021_sr_ste,
    zhu2017_gmp,
)
from experiments.papers.grids import GRIDS
from experiments.runs.table import Paper

PAPERS: tuple[Paper, ...] = (
    zhu2017_gmp,
    gupta2022_global_mp,
    evci2020_rigl,
    lee2019_snip,
    ma2022_gap,
    tanaka2020_synflow,
    yuan2021_mest,
    niu2021_grim,
    gupta2022_fastgrnn,
    xu2023_sparsebytenn,
    elsen2020_fast_sparse_convnets,
    kundu2023_r2,
    lin2021_unification,
    frantar2023_sparse_gpt,
    sun2023_wanda,
    lubana2021_gradient_flow,
    ma2021_sanity_checks,
    cho2023_pdp,
    kusupati2020_str,
    peste2021_ac_dc,
    sanh2020_movement,
    zhou2021_sr_ste,
    jayakumar2021_top_kast,
    tai2022_spartan,
    arivazhagan2019_fedper,
    georgiadis2019_activation_maps,
    he2018_amc,
    wang2019_haq,
    jha2020_deeppeep,
    yuan2021_mobile_or_fpga,
    saini2020_ulsam,
    jha2020_e2gc,
    cai2019_proxylessnas,
    zhao2021_neural_pruning_search,
    niu2021_canao,
    fan2024_scalekd,
    budgets,
)
TABLES = PAPERS + GRIDS  # "all" does not run the grids, of days on two cores


def name_of(paper: Paper) -> str:
    """The paper's name on the command line: its module's."""
    return paper.__name__.rpartition(".")[2]


def find(names: tuple[str, ...]) -> list[Paper]:
    """The papers of these names, all of them for "all".

    Raises:
        SystemExit: there is no such paper.
    """
    known = {name_of(paper): paper for paper in TABLES}
    unknown = [name for name in names if name not in {*known, "all"}]
    if unknown or not names:
        raise SystemExit(
            f"run needs the names of papers, got {', '.join(unknown) or 'none'}; "
            f"there are: all, {', '.join(known)}."
        )
    return list(PAPERS) if "all" in names else [known[name] for name in names]
