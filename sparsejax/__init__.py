"""Train sparse, run sparse in JAX: exact masks for any optimizer, kernels that make them fast."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from sparsejax import activations as activations
from sparsejax import audit as audit
from sparsejax import before as before
from sparsejax import budgets as budgets
from sparsejax import compiler as compiler
from sparsejax import deploy as deploy
from sparsejax import federated as federated
from sparsejax import masks as masks
from sparsejax import ops as ops
from sparsejax import patterns as patterns
from sparsejax import penalties as penalties
from sparsejax import plans as plans
from sparsejax import post as post
from sparsejax import pruning as pruning
from sparsejax import quantizers as quantizers
from sparsejax import reports as reports
from sparsejax import search as search
from sparsejax import soft as soft
from sparsejax import sparse_training as sparse_training
from sparsejax import structured as structured
from sparsejax import studies as studies
from sparsejax import training as training
from sparsejax import tree as tree
from sparsejax.algorithms.pruning.global_mp import global_mp as global_mp
from sparsejax.algorithms.pruning.gmp import gmp as gmp
from sparsejax.algorithms.pruning.one_shot import one_shot as one_shot
from sparsejax.algorithms.sparse_training.rigl import rigl as rigl
from sparsejax.algorithms.sparse_training.sparse_evolution import (
    sparse_evolution as sparse_evolution,
)
from sparsejax.algorithms.sparse_training.static_random import static_random as static_random
from sparsejax.compiler.entry import compile as compile
from sparsejax.compiler.files.read import load as load
from sparsejax.compiler.files.write import save as save
from sparsejax.jaxprs.accelerate import accelerate as accelerate
from sparsejax.jaxprs.multiply_adds import multiply_adds as multiply_adds
from sparsejax.jaxprs.widths.groups import channel_groups as channel_groups
from sparsejax.masks import schedules as schedules
from sparsejax.masks import scores as scores
from sparsejax.masks.initial import masked as masked
from sparsejax.masks.prune_and_grow import drop as drop
from sparsejax.masks.prune_and_grow import grow as grow
from sparsejax.masks.prune_and_grow import prune as prune
from sparsejax.masks.prune_and_grow import resize as resize
from sparsejax.masks.prune_and_grow import start as start
from sparsejax.masks.transforms import chain as chain
from sparsejax.masks.transforms import every as every
from sparsejax.memory import keep_freed_memory as keep_freed_memory
from sparsejax.ops.depthwise import depthwise_conv2d as depthwise_conv2d
from sparsejax.ops.sparse_matmul import spmm as spmm
from sparsejax.patterns import NM as NM
from sparsejax.patterns import Block as Block
from sparsejax.patterns import BlockColumnRow as BlockColumnRow
from sparsejax.patterns import Channel as Channel
from sparsejax.patterns import KernelGroup as KernelGroup
from sparsejax.patterns import KernelPattern as KernelPattern
from sparsejax.patterns import Pattern as Pattern
from sparsejax.patterns import Unstructured as Unstructured
from sparsejax.patterns.stacked import Stacked as Stacked
from sparsejax.penalties import add_penalty as add_penalty
from sparsejax.penalties import linf as linf
from sparsejax.penalties import margin as margin
from sparsejax.penalties import soft_min_max as soft_min_max
from sparsejax.plans import allocate as allocate
from sparsejax.plans.plan import Plan as Plan
from sparsejax.plans.plan import plan as plan
from sparsejax.reports.check import check as check
from sparsejax.reports.report import report as report
from sparsejax.shrinking.scores import channel_scores as channel_scores
from sparsejax.shrinking.shrink import shrink as shrink
from sparsejax.text import SparsityWarning as SparsityWarning
from sparsejax.training.asked import ForwardWarning as ForwardWarning
from sparsejax.training.checkpoints import checkpoint as checkpoint
from sparsejax.training.opt_states import effective as effective
from sparsejax.training.opt_states import forward as forward
from sparsejax.training.opt_states import harden as harden
from sparsejax.training.opt_states import masks_of as masks_of
from sparsejax.training.sparsify import sparsify as sparsify

if _TYPE_CHECKING:
    from sparsejax import distill as distill
    from sparsejax import nn as nn

__version__ = _version("sparsejax")


def __getattr__(name: str) -> _Any:
    """`sj.nn` and `sj.distill` when asked for: they need flax, which takes a second to import."""
    if name in ("distill", "nn"):
        return _import_module(f"sparsejax.{name}")
    raise AttributeError(f"module 'sparsejax' has no attribute {name!r}")
