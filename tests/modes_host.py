"""Calls of the public functions that look at values, and names that need no call of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optax

import sparsejax as sj
from tests.modes_table import (
    BLOCKS,
    BOTH,
    CONV,
    GROUPS,
    KERNEL,
    KEY,
    MASKS,
    PARAMS,
    PLAN,
    UNIFIED,
    X,
    apply,
    loss,
)


def allocated(allocate) -> Callable[[], Any]:
    rules = {"kernel": sj.Unstructured()}
    return lambda: sj.plan(PARAMS, rules, sparsity=0.5, allocate=allocate)


def within(make) -> Callable[[], Any]:
    return lambda: sj.plan(PARAMS, {"kernel": sj.Unstructured()}, budget=make())


def state_of(make=lambda: sj.one_shot(0), plan=PLAN) -> Any:
    return sj.sparsify(optax.sgd(0.1), make(), plan, key=KEY).init(PARAMS)


CALIBRATION = sj.post.calibrate(apply, PARAMS, PLAN, [X])
KEPT = {"body/kernel": np.arange(8) < 6}
CALIBRATED_HEAD = sj.post.calibrate(
    apply, PARAMS, sj.plan(PARAMS, {"head": sj.Unstructured()}, sparsity=0.5), [X], gram=False
)
ADMM = sj.structured.admm(sj.structured.onto_patterns(PLAN), every=1)
STATE = state_of(lambda: sj.start(sj.scores.magnitude))

TABLE = sj.budgets.LatencyTable(
    "here",
    {
        (leaf.path, str(leaf.pattern)): ((0.0, 0.5), (20.0, 10.0))
        for leaf in sj.plan(PARAMS, {"kernel": sj.Unstructured()}, sparsity=0.5).leaves
    },
    fixed=10.0,
    scale=1.0,
)

# What looks at values in Python: what it gives is the same in every mode.
ON_THE_HOST = {
    "plan": allocated(sj.allocate.uniform),
    "erk": allocated(sj.allocate.erk),
    "lamp": allocated(sj.allocate.lamp),
    "global_magnitude": allocated(sj.allocate.global_magnitude),
    "global_magnitude_with_minimum": allocated(
        sj.allocate.global_magnitude_with_minimum(min_weights=4)
    ),
    "parameters": within(lambda: sj.budgets.parameters(0.5)),
    "stored_bytes": within(lambda: sj.budgets.stored_bytes(0.5)),
    "multiply_adds_left": within(
        lambda: sj.budgets.multiply_adds_left(0.5, sj.multiply_adds(apply, PARAMS, X))
    ),
    "milliseconds": within(lambda: sj.budgets.milliseconds(0.05, TABLE)),
    "LatencyTable": lambda: TABLE.milliseconds_of(PLAN),
    "energy_lost": lambda: sj.budgets.energy_lost(PLAN.leaves[0], KERNEL, [0.0, 0.5]),
    "output_error": lambda: sj.budgets.output_error(CALIBRATION)(PLAN.leaves[0], KERNEL, [0.5]),
    "calibrate": lambda: sj.post.calibrate(apply, PARAMS, PLAN, [X]),
    "LayerInputs": lambda: CALIBRATION["body/kernel"].to_matrices(KERNEL),
    "wanda": lambda: sj.post.wanda(CALIBRATION)(PARAMS, PLAN),
    "sparse_gpt": lambda: sj.post.sparse_gpt(PARAMS, PLAN, CALIBRATION),
    "exact_obs": lambda: sj.post.exact_obs(PARAMS, PLAN, CALIBRATION),
    "obs_correct": lambda: sj.post.obs_correct(PARAMS, MASKS, CALIBRATION),
    "snip": lambda: sj.before.snip(loss, [X])(PARAMS, PLAN),
    "grasp": lambda: sj.before.grasp(loss, [X])(PARAMS, PLAN),
    "synflow": lambda: sj.before.synflow(apply, X, rounds=2)(PARAMS, PLAN),
    "rearrange": lambda: sj.structured.rearrange(apply, PARAMS, BLOCKS, X),
    "operator_patterns": lambda: sj.structured.operator_patterns(PARAMS),
    "unified_storage": lambda: sj.structured.unified_storage(CONV, UNIFIED),
    "block_rows": lambda: sj.pruning.block_rows(np.asarray(KERNEL) > 0),
    "gap_parts": lambda: sj.sparse_training.gap_parts(BOTH, 2),
    "finest_fast_pattern": lambda: sj.structured.finest_fast_pattern(
        [sj.Block(4, 1), sj.Block(8, 1)], (4, 8), 0.5, measure=lambda packed: [2.0, 1.0]
    ),
    "channel_groups": lambda: str(sj.channel_groups(apply, PARAMS, X)),
    "shrink": lambda: sj.shrink(apply, PARAMS, X, keep=KEPT).params,
    "channel_l1": lambda: sj.channel_scores(GROUPS, PARAMS, sj.structured.channel_l1()),
    "taylor": lambda: sj.channel_scores(GROUPS, PARAMS, sj.structured.taylor(loss, [X], order=2)),
    "random_units": lambda: sj.channel_scores(GROUPS, PARAMS, sj.structured.random_units(KEY)),
    "activation_scores": lambda: sj.structured.activation_scores(GROUPS, PARAMS, CALIBRATED_HEAD),
    "channels_within": lambda: sj.structured.channels_within(
        apply, PARAMS, X, scores={"body/kernel": np.arange(8.0)}, parameters=0.5, multiple=1
    ),
    "best_channels": lambda: sj.structured.best_channels(
        GROUPS, {"body/kernel": np.arange(8.0)}, 0.5, multiple=1
    ),
    "multiply_adds": lambda: sj.multiply_adds(apply, PARAMS, X),
    "report": lambda: sj.report(PARAMS, PLAN, STATE, apply_fn=apply, example=X).to_dict(),
    "check": lambda: str(sj.check(PARAMS, STATE)),
    "training_memory": lambda: sj.reports.training_memory(PARAMS, PLAN, optax.sgd(0.1)),
    "admm_residual": lambda: sj.structured.admm_residual(PARAMS, ADMM.init(PARAMS)),
    "count_forgetting": lambda: sj.studies.count_forgetting(
        sj.studies.no_forgetting(2), np.arange(2), np.arange(2) > 0
    ),
}

# Public names whose calls are within those of other names.
WITHIN = {
    "sparsify": "gmp",
    "Budget": "parameters",
    "forward": "gmp",
    "effective": "gmp",
    "harden": "gmp",
    "masks_of": "gmp",
    "drop": "chain",
    "grow": "chain",
    "gradient_flow": "flow_loss",
    "onto_patterns": "admm",
    "add_penalty": "linf",
    "uniform": "plan",
    "no_forgetting": "count_forgetting",
    "Pattern": "Unstructured",
    "CSR": "Unstructured",
    "BSR": "Block",
    "BCRC": "BlockColumnRow",
    "KeptChannels": "Channel",
    "PackedKernels": "KernelPattern",
    "PackedNM": "NM",
    "Packed": "Unstructured",
    "PenaltyState": "linf",
    "tap": "with_maps",
    "sample_gate": "one_path",
    "keep_others": "one_path",
    "times_log_cost": "one_path",
    "PathCosts": "one_path",
    "Gate": "one_path",
    "dequantize": "quantize",
    "Quantized": "quantize",
    "CompiledFunction": "compile",
    "LoadedFunction": "load",
    "save": "load",
    "Plan": "plan",
    "ChannelGroup": "channel_groups",
    "Shrunk": "shrink",
    "channel_scores": "channel_l1",
    "ChannelGroups": "channel_groups",
    "Place": "channel_groups",
    "Report": "report",
    "Check": "check",
    "Finding": "check",
}
TRACED_SEARCH = {"Gate", "PathCosts", "keep_others", "one_path", "plus_cost", "sample_gate"}
TRACED_SEARCH |= {"times_log_cost"}
TRACED_MAPS = {"Quantized", "dequantize", "l1", "quantize", "sow", "tap", "with_maps"}


def _offered(namespace: Any) -> list[str]:
    """The names of a namespace that its own modules define."""
    return [name for name, thing in vars(namespace).items() if callable(thing)]


# Public names that no mode can reach, and why.
OUTSIDE = {
    **dict.fromkeys(
        ["FlowMeasure", "MaskContext", "MaskTransform", "Method", "Penalty", "Reparam"],
        "a record of functions, which have rows of their own",
    ),
    **dict.fromkeys(
        ["CompileReport", "LayerReport", "FileReport", "StoredLayer", "LeafReport", "PlanLeaf"],
        "a record of Python values",
    ),
    **dict.fromkeys(["TrainingMemory", "Ticket"], "a record of Python values"),
    **dict.fromkeys(
        ["SparsifyState", "ForgettingCounts", "FeatureLosses", "FederatedState", "RoundReport"],
        "a record of arrays",
    ),
    **dict.fromkeys(["Clients", "Variables"], "a record of arrays"),
    **dict.fromkeys(["Federated", "LocalTraining", "BaseUpdate"], "a record of functions"),
    **dict.fromkeys(
        ["fedper", "local_sgd", "masked_update", "top_k_update", "whole_update"],
        "a round of clients, one program by itself; tests/federated runs it",
    ),
    **dict.fromkeys(["flower_client", "flower_strategy"], "Flower runs it in its own processes"),
    **dict.fromkeys(["class_partition", "stack_clients"], "NumPy only"),
    **dict.fromkeys(
        ["CrossAttentionProjector", "ScaleKD", "GroupConv", "GroupConvLinen", "ULSAM"],
        "a module of flax, which has modes of its own",
    ),
    **dict.fromkeys(["ULSAMLinen", "sow"], "of flax, which has modes of its own"),
    **dict.fromkeys(
        ["GroupConvCost", "best_group_size", "group_conv_cost", "Overhead", "attention_overhead"],
        "Python numbers",
    ),
    **dict.fromkeys(_offered(sj.deploy), "Python numbers, clocks and threads"),
    **dict.fromkeys(_offered(sj.audit), "clocks, XLA's text and scikit-learn"),
    **dict.fromkeys(
        [name for name in _offered(sj.search) if name not in TRACED_SEARCH],
        "a loop in Python around the user's own function",
    ),
    **dict.fromkeys(
        [name for name in _offered(sj.activations) if name not in TRACED_MAPS], "NumPy only"
    ),
    **dict.fromkeys(["ForwardWarning", "SparsityWarning"], "a warning"),
    **dict.fromkeys(["jackpot", "Jackpot"], "statistics of Python numbers"),
    **dict.fromkeys(["most_forgotten", "KeptExamples"], "NumPy only"),
    **dict.fromkeys(["KerasOptimizer", "keras_params"], "Keras runs it in its own modes"),
    **dict.fromkeys(["checkpoint", "Checkpoints"], "reads and writes files"),
    "keep_freed_memory": "a setting of glibc",
    "plot": "matplotlib only",
    "Stacked": "a rule of the plan, in Python; tests/patterns/test_stacked.py traces its layers",
}
