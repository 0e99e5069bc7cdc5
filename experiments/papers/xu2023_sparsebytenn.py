"""SparseByteNN: groups of kernels, and channels rearranged over the whole network before pruning.

Xu, Liu, et al., "SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on
Fine-Grained Group Sparsity", 2023, arXiv:2310.19509.

    python -m experiments run xu2023_sparsebytenn

A trained MobileNet-v1 (width 0.25, Fashion-MNIST) goes on for a third of its steps while blocks of
8 outputs x 1 input of its 1x1 convolutions are pruned by magnitude; "rearranged" orders its
channels first, which changes nothing that the dense network computes. The paper gives numbers for
ImageNet and a phone in its abstract, its tables are not at hand; our times are those of
MobileNet-v1 1.0/224 on this machine against our own dense engine, in turn.

Cost: one shared training of about a minute and a half on one core a seed, six times a third of it,
and three timings of a minute. Expected: at 30 % the accuracy falls by less than 0.3 points;
rearranging helps, more at 70 % than at 30 %.
"""

import dataclasses

import jax
import numpy as np

import sparsejax as sj
from experiments.data.dataset import standardize_like
from experiments.recipes.magnitude import dense, gmp
from experiments.runs.table import Claim, Contrast, Job, PaperNumber, Row, Term, more, no_less
from experiments.settings import train
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress
from experiments.settings.network_latency import NetworkLatency

TITLE = "SparseByteNN: kernel groups and rearranged channels"
BLOCKS = sj.Block(8, 1)


def rearranged(network: train.Network, setting: Classify, job: Job) -> train.Network:
    """The network with its channels in an order that suits the setting's pattern and sparsity.

    Raises:
        RuntimeError: the rearranged network computes something else.
    """
    dataset = setting.data(job.data)
    images = standardize_like(dataset.train_images)(dataset.train_images[:8])
    variables = (network.params, network.statistics)
    rules = {setting.prunable: setting.pattern}
    plan = sj.plan(variables, rules, sparsity=setting.sparsity, allocate=setting.allocate)
    params, statistics = sj.structured.rearrange(network.apply, variables, plan, images)
    apply = jax.jit(network.apply)
    before, after = (np.asarray(apply(v, images)) for v in (variables, (params, statistics)))
    if not np.abs(after - before).max() <= 1e-4 * np.abs(before).max():
        raise RuntimeError("rearranged changed what the network computes")
    return network._replace(params=params, statistics=statistics)


DENSE = Compress(dense, Classify())
PRUNED = Compress(gmp, Classify(), pattern=BLOCKS)


def _pruned(sparsity: float, **options) -> Compress:
    return dataclasses.replace(PRUNED, sparsity=sparsity, **options)


ROWS = (
    Row("dense", DENSE, 2),
    Row("blocks, 30 %", _pruned(0.3), 2),
    Row("blocks, rearranged, 30 %", _pruned(0.3, prepare=rearranged), 2),
    Row("blocks, 70 %", _pruned(0.7), 2),
    Row("blocks, rearranged, 70 %", _pruned(0.7, prepare=rearranged), 2),
    Row("single weights, 70 %", _pruned(0.7, pattern=sj.Unstructured()), 2),
    Row("1.0/224, 30 %, 8x1", NetworkLatency(0.3, 8)),
    Row("1.0/224, 30 %, 4x1", NetworkLatency(0.3, 4)),
    Row("1.0/224, 70 %, 4x1", NetworkLatency(0.7, 4)),
)

PAPER = (
    PaperNumber(
        "MobileNet-v1, Snapdragon 855, 30 %, over its dense engine", 1.27, "x", "abstract",
        "1.0/224, 30 %, 8x1",
    ),
    PaperNumber("the same over MNN's sparse engine", 1.29, "x", "abstract"),
    PaperNumber("MobileNet-v1, ImageNet, 30 %, drop of accuracy", 0.224, "points", "abstract"),
)  # fmt: skip

CLAIMS = (
    Claim(
        "at 30 % the accuracy drops by at most 0.3 points",
        no_less("blocks, rearranged, 30 %", "dense", by=0.003),
    ),
    Claim("rearranging helps at 70 %", more("blocks, rearranged, 70 %", "blocks, 70 %")),
    Claim(
        "30 % of blocks run faster than dense",
        Contrast((Term("1.0/224, 30 %, 8x1"),), above=1.0),
    ),
)
