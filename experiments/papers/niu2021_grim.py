"""GRIM: block-based column-row pruning, a GRU trained with it and run packed.

Niu, Li, Ma, Dong, Zhu, Qian, Lin, Wang, Ren, "GRIM: A General, Real-Time Deep Learning Inference
Framework for Mobile Devices based on Fine-Grained Structured Weight Sparsity", TPAMI 2021,
arXiv:2108.11033.

    python -m experiments run niu2021_grim

Cost: 16 trainings of a GRU of 128 units, 600 steps each, and five timings of half a minute on one
core. The paper's tables are not at hand, its abstract gives one number, for a phone against other
engines; ours are against XLA's dense product and our CSR kernel on this machine, in turn. Expected:
blocks cost little accuracy against single weights, less than whole channels would; packed in blocks
the product runs several times faster than dense and than CSR, in about half of its bytes. ADMM
pulls beside Adam's step, not through it: what Adam divides by its size draws no weight to its set.
"""

import sparsejax as sj
from experiments.data.sequences import watch
from experiments.models.recurrent import gru_128
from experiments.recipes.blocks import bcr_admm, bcr_reweighted
from experiments.recipes.magnitude import dense, gmp
from experiments.runs.table import (
    Claim,
    Contrast,
    Fact,
    PaperNumber,
    Results,
    Row,
    Term,
    more,
    no_less,
)
from experiments.settings.classify import Classify
from experiments.settings.product_latency import ProductLatency
from experiments.settings.recurrent import PackedGRU

TITLE = "GRIM: block-based column-row pruning"


def _gru(method=dense, sparsity: float = 0.0, pattern: sj.Pattern | None = None) -> Classify:
    return Classify(
        method,
        sparsity,
        net=gru_128,
        data=watch,
        prunable="recurrent/kernel",
        pattern=pattern or sj.Unstructured(),
        allocate=sj.allocate.uniform,
        steps=600,
    )


BLOCKS = sj.BlockColumnRow(8, 16)
COLUMNS_AND_ROWS = sj.BlockColumnRow(16, 32, kept_rows=8)

PACKED = "GRU, 8x16 blocks, ADMM, 90 %, run packed"
ROWS = (
    Row("GRU, dense", _gru(), seeds=2),
    Row("GRU, single weights, GMP, 90 %", _gru(gmp, 0.9), seeds=2),
    Row("GRU, 8x16 blocks, GMP, 90 %", _gru(gmp, 0.9, BLOCKS), seeds=2),
    Row(PACKED, PackedGRU(_gru(bcr_admm, 0.9, BLOCKS)), 2),
    Row("GRU, 8x16 blocks, reweighted, 90 %", _gru(bcr_reweighted, 0.9, BLOCKS), seeds=2),
    Row("GRU, columns and rows, ADMM, 90 %", _gru(bcr_admm, 0.9, COLUMNS_AND_ROWS), seeds=2),
    Row("GRU, 8x16 blocks, ADMM, 95 %", _gru(bcr_admm, 0.95, BLOCKS), seeds=2),
    Row("GRU, whole inputs, GMP, 90 %", _gru(gmp, 0.9, sj.Channel(-2)), seeds=2),
    Row("product, 512 units, 90 %, 4x16", ProductLatency(512, 0.9, 4)),
    Row("product, 512 units, 90 %, 8x16", ProductLatency(512, 0.9, 8)),
    Row("product, 512 units, 90 %, 16x16", ProductLatency(512, 0.9, 16)),
    Row("product, 512 units, 90 %, 64x64 with 32 rows", ProductLatency(512, 0.9, 64, 64, 32)),
    Row("product, 512 units, 90 %, 8x16, batch 32", ProductLatency(512, 0.9, 8, batch=32)),
)

PAPER = (PaperNumber("on a phone, the best against other engines", 14.08, "x", "abstract"),)


PRODUCTS = [row for row in ROWS if row.name.startswith("product")]


def _predicts_alike(results: Results) -> bool:
    return abs(results.mean(PACKED) - results.mean(PACKED, "dense_accuracy")) < 1e-6


CLAIMS = (
    Claim(
        "8x16 blocks stay within two points of single weights at 90 %",
        no_less("GRU, 8x16 blocks, GMP, 90 %", "GRU, single weights, GMP, 90 %", by=0.02),
    ),
    Claim(
        "blocks beat whole inputs at 90 %",
        more("GRU, 8x16 blocks, GMP, 90 %", "GRU, whole inputs, GMP, 90 %"),
    ),
    Claim("the packed GRU predicts as the dense one does", Fact(_predicts_alike)),
    Claim(
        "packed in blocks, products are faster than CSR of the same zeros",
        *(Contrast((Term(row.name, "over_csr"),), above=1.0) for row in PRODUCTS),
    ),
)
