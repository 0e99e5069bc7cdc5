"""Train sparse, run sparse in JAX: exact masks for any optimizer, kernels that make them fast."""

from importlib.metadata import version as _version

from sparsejax.accelerate import accelerate as accelerate
from sparsejax.algorithms import global_mp as global_mp
from sparsejax.algorithms import gmp as gmp
from sparsejax.algorithms import one_shot as one_shot
from sparsejax.algorithms import prune_globally as prune_globally
from sparsejax.algorithms import rigl as rigl
from sparsejax.algorithms import sparse_evolution as sparse_evolution
from sparsejax.algorithms import static_random as static_random
from sparsejax.compile import CompiledFunction as CompiledFunction
from sparsejax.compile import CompileReport as CompileReport
from sparsejax.compile import LayerReport as LayerReport
from sparsejax.compile import compile as compile
from sparsejax.distributions import PlanLeaf as PlanLeaf
from sparsejax.distributions import erk as erk
from sparsejax.distributions import global_magnitude as global_magnitude
from sparsejax.distributions import global_magnitude_with_minimum as global_magnitude_with_minimum
from sparsejax.distributions import lamp as lamp
from sparsejax.distributions import uniform as uniform
from sparsejax.masks import MaskContext as MaskContext
from sparsejax.masks import MaskTransform as MaskTransform
from sparsejax.masks import chain as chain
from sparsejax.masks import drop as drop
from sparsejax.masks import every as every
from sparsejax.masks import grow as grow
from sparsejax.masks import prune as prune
from sparsejax.masks import start as start
from sparsejax.ops import depthwise_conv2d as depthwise_conv2d
from sparsejax.ops import depthwise_conv2d_reference as depthwise_conv2d_reference
from sparsejax.ops import spmm as spmm
from sparsejax.ops import spmm_reference as spmm_reference
from sparsejax.patterns import BSR as BSR
from sparsejax.patterns import CSR as CSR
from sparsejax.patterns import NM as NM
from sparsejax.patterns import Block as Block
from sparsejax.patterns import Channel as Channel
from sparsejax.patterns import Pattern as Pattern
from sparsejax.patterns import Unstructured as Unstructured
from sparsejax.penalties import Penalty as Penalty
from sparsejax.penalties import add_penalty as add_penalty
from sparsejax.penalties import group_lasso as group_lasso
from sparsejax.penalties import kure as kure
from sparsejax.penalties import linf as linf
from sparsejax.penalties import margin as margin
from sparsejax.penalties import soft_min_max as soft_min_max
from sparsejax.plan import Plan as Plan
from sparsejax.plan import plan as plan
from sparsejax.reparams import Reparam as Reparam
from sparsejax.reparams import straight_through as straight_through
from sparsejax.schedules import cosine_decay as cosine_decay
from sparsejax.schedules import cubic as cubic
from sparsejax.scores import gradient as gradient
from sparsejax.scores import magnitude as magnitude
from sparsejax.scores import random as random_score  # noqa: F401
from sparsejax.scores import saliency as saliency
from sparsejax.sparsify import SparsifyState as SparsifyState
from sparsejax.sparsify import effective as effective
from sparsejax.sparsify import full_masks as full_masks
from sparsejax.sparsify import harden as harden
from sparsejax.sparsify import masks_from_zeros as masks_from_zeros
from sparsejax.sparsify import masks_of as masks_of
from sparsejax.sparsify import sparsify as sparsify

__version__ = _version("sparsejax")
