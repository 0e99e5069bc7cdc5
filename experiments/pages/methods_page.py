"""The table of all methods: paper, granularity, needs, cost of a step, our result.

`python -m experiments table` writes it to results/methods.md, which docs/methods.md includes. Costs
are those of benchmarks/results/method_costs.json (`python -m benchmarks.method_costs`).
"""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optax
from flax import nnx

import sparsejax as sj
from experiments.data.stored import read_json
from experiments.recipes import Recipe, dynamic, elastic, initial, magnitude, soft
from experiments.runs.records import RESULTS, ROOT, Store
from experiments.settings.classify import Classify
from experiments.settings.train import take_apart

FILE = RESULTS / "methods.md"
COSTS = ROOT / "benchmarks" / "results" / "method_costs.json"
MEASURE = "write it again with python -m benchmarks.method_costs"


class Entry(NamedTuple):
    """A line: the public function, what it prunes as one, what it needs, its recipe if any.

    `account` has what `sj.reports.training_memory` is to know of a method that trains kept weights
    only.
    """

    function: Callable[..., Any]
    granularity: str
    needs: str
    recipe: Recipe | None = None
    account: Mapping[str, Any] | None = None


ANY = "any pattern"
TRAINING = "a training"
SPARSE: Mapping[str, Any] = {}
RIGL = "a training, dense gradients now and then"
METHODS = (
    Entry(sj.one_shot, ANY, "a trained network"),
    Entry(sj.gmp, ANY, TRAINING, magnitude.gmp),
    Entry(sj.global_mp, ANY, TRAINING, magnitude.global_mp),
    Entry(sj.pruning.fast_sparse_convnets, "1x1 convolutions, blocks", TRAINING),
    Entry(sj.pruning.ac_dc, ANY, TRAINING, soft.ac_dc),
    Entry(sj.static_random, ANY, TRAINING, dynamic.static_random, SPARSE),
    Entry(sj.sparse_evolution, ANY, TRAINING, dynamic.sparse_evolution, SPARSE),
    Entry(sj.rigl, ANY, RIGL, dynamic.rigl, {"dense_gradients": True}),
    Entry(sj.sparse_training.mest_em, ANY, TRAINING, elastic.mest_em, SPARSE),
    Entry(sj.sparse_training.mest_ems, ANY, TRAINING, elastic.mest_ems, {"peak": 1.5}),
    Entry(sj.sparse_training.gap, ANY, "a long training", elastic.gap),
    Entry(sj.soft.pdp, ANY, "a training, dense weights", soft.pdp),
    Entry(sj.soft.str_, "weights, groups", "a training, dense weights", soft.str_),
    Entry(sj.soft.movement, ANY, "a training, dense weights and scores", soft.movement),
    Entry(
        sj.soft.soft_movement, "weights", "a training, dense weights and scores", soft.soft_movement
    ),
    Entry(sj.soft.sr_ste, "N:M, any pattern", "a training, dense weights", soft.sr_ste),
    Entry(sj.soft.top_kast, ANY, "a training, dense weights", soft.top_kast),
    Entry(sj.soft.spartan, ANY, "a training, dense weights", soft.spartan),
    Entry(sj.before.snip, ANY, "one batch, then a training", initial.snip),
    Entry(sj.before.grasp, ANY, "one batch, then a training", initial.grasp),
    Entry(sj.before.synflow, ANY, "no data, then a training", initial.synflow),
    Entry(sj.post.wanda, ANY, "calibration inputs"),
    Entry(sj.post.sparse_gpt, "weights, N:M", "calibration inputs"),
    Entry(sj.post.exact_obs, "weights, N:M", "calibration inputs"),
    Entry(sj.structured.admm, "any projection", TRAINING),
    Entry(sj.structured.tied_blocks, "blocks of one magnitude", TRAINING),
)
HEAD = ("method", "paper", "granularity", "needs", "step", "state", "memory", "90 %", "98 %")
NOTE = """
Accuracy: MobileNet-v1 of width 0.25 on Fashion-MNIST, 3,000 steps of 64 images, zeros counted over
the 1x1 kernels, mean over the seeds; dense {dense}. Step and state: time of a training step and
bytes of optimizer state over dense AdamW's on the same network, dense weights underneath included;
masks cost a byte a weight. Memory: what `sj.reports.training_memory` says a training at 90 % needs
at its peak for weights, gradients, moments and indices if it stores nothing else, over the dense
one's; nothing where dense weights are trained.
"""


def write(store: Store, *, file: Path = FILE, costs: Path = COSTS) -> None:
    """Write the table from the records and the costs that there are."""
    known = read_json(costs, {}, MEASURE) if costs.exists() else {}
    rows = [HEAD, ["---"] * len(HEAD), *(line(entry, store, known) for entry in METHODS)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    table = table.replace(" %", "\u00a0%")  # a number and its sign stay on one line
    dense = accuracy(store, Classify())
    file.write_text(table + "\n" + NOTE.format(dense=dense or "is not run yet"))


def line(entry: Entry, store: Store, costs: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a method."""
    cells = (f"`sj.{entry.function.__name__}`", paper(entry.function), *entry[1:3])
    if entry.recipe is None:
        return (*cells, "", "", "", "", "")
    cost = costs.get(entry.recipe.__name__)
    times = (f"{cost['of_dense']:.2f}x", f"{cost['state_of_dense']:.2f}x") if cost else ("", "")
    levels = (accuracy(store, Classify(entry.recipe, sparsity)) for sparsity in (0.9, 0.98))
    memory = "" if entry.account is None else f"{memory_of_dense(**entry.account):.2f}x"
    return (*cells, *times, memory, *levels)


def memory_of_dense(**account: Any) -> float:
    """The bytes of a sparse training at 90 % over those of the dense one, both with AdamW."""
    setting, tx = Classify(), optax.adamw(1e-3)
    params = nnx.eval_shape(lambda: take_apart(setting.net((28, 28, 1), 10, 0))).params
    dense, sparse = (
        sj.plan(params, {setting.prunable: setting.pattern}, sparsity=sparsity)
        for sparsity in (0.0, 0.9)
    )
    whole = sj.reports.training_memory(params, dense, tx)
    own = sj.reports.training_memory(params, sparse, tx, **account)
    return own.total / (whole.total - whole.indices)


def paper(function: Callable[..., Any]) -> str:
    """The first reference of its docstring, linked: "Evci et al., 2020"."""
    reference = inspect.getdoc(function).partition("Reference:")[2]  # type: ignore[union-attr]
    reference = " ".join(reference.split()).partition(";")[0]
    authors = reference.partition(' "')[0].rstrip(",")
    first = authors.split(",")[0].split(" and ")[0].removesuffix(" et al.")
    others = authors.removeprefix(first)
    et_al = others if others.startswith(" and ") else " et al." * bool(others)
    year = re.search(r"\b(19|20)\d\d\b", reference)
    text = f"{first}{et_al}, {year[0]}" if year else f"{first}{et_al}"
    arxiv = re.search(r"arXiv:? ?(\d{4}\.\d{4,5})", reference)
    return f"[{text}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else text


def accuracy(store: Store, setting: Classify) -> str:
    """The mean accuracy of a setting's records in percent, or nothing."""
    records = [store.read(setting, seed) for seed in range(3)]
    values = [record["result"]["accuracy"] for record in records if record]
    return f"{100 * sum(values) / len(values):.1f} %" if values else ""
