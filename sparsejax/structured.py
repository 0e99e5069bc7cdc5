"""Structured sparsity: which pattern where, and trainings drawn towards one."""

from sparsejax.algorithms.structured.admm import admm as admm
from sparsejax.algorithms.structured.admm import admm_residual as admm_residual
from sparsejax.algorithms.structured.admm import onto_patterns as onto_patterns
from sparsejax.algorithms.structured.block_size import finest_fast_pattern as finest_fast_pattern
from sparsejax.algorithms.structured.rearrange import operator_patterns as operator_patterns
from sparsejax.algorithms.structured.rearrange import rearrange as rearrange
from sparsejax.algorithms.structured.reweighted import reweighted as reweighted
from sparsejax.algorithms.structured.unification import onto_unified as onto_unified
from sparsejax.algorithms.structured.unification import tied_blocks as tied_blocks
from sparsejax.algorithms.structured.unification import unified_storage as unified_storage
from sparsejax.jaxprs.widths.groups import ChannelGroup as ChannelGroup
from sparsejax.jaxprs.widths.groups import ChannelGroups as ChannelGroups
from sparsejax.jaxprs.widths.groups import Place as Place
from sparsejax.shrinking.scores import activation_scores as activation_scores
from sparsejax.shrinking.scores import best_channels as best_channels
from sparsejax.shrinking.scores import channel_l1 as channel_l1
from sparsejax.shrinking.scores import random_units as random_units
from sparsejax.shrinking.scores import taylor as taylor
from sparsejax.shrinking.shared_masks import prune_channels as prune_channels
from sparsejax.shrinking.shrink import Shrunk as Shrunk
from sparsejax.shrinking.within import channels_within as channels_within
