"""The published methods, one paper a file: each is a composition of mask transforms."""

from sparsejax.algorithms.admm import admm as admm
from sparsejax.algorithms.admm import admm_residual as admm_residual
from sparsejax.algorithms.admm import onto_patterns as onto_patterns
from sparsejax.algorithms.exact_obs import exact_obs as exact_obs
from sparsejax.algorithms.exact_obs import obs_correct as obs_correct
from sparsejax.algorithms.fast_sparse_convnets import block_rows as block_rows
from sparsejax.algorithms.fast_sparse_convnets import fast_sparse_convnets as fast_sparse_convnets
from sparsejax.algorithms.global_mp import global_mp as global_mp
from sparsejax.algorithms.global_mp import prune_globally as prune_globally
from sparsejax.algorithms.gmp import gmp as gmp
from sparsejax.algorithms.grasp import grasp as grasp
from sparsejax.algorithms.mest import mest_em as mest_em
from sparsejax.algorithms.mest import mest_ems as mest_ems
from sparsejax.algorithms.one_shot import one_shot as one_shot
from sparsejax.algorithms.rigl import rigl as rigl
from sparsejax.algorithms.snip import snip as snip
from sparsejax.algorithms.sparse_evolution import sparse_evolution as sparse_evolution
from sparsejax.algorithms.sparse_gpt import sparse_gpt as sparse_gpt
from sparsejax.algorithms.static_random import static_random as static_random
from sparsejax.algorithms.synflow import synflow as synflow
from sparsejax.algorithms.unification import onto_unified as onto_unified
from sparsejax.algorithms.unification import tied_blocks as tied_blocks
from sparsejax.algorithms.unification import unified_storage as unified_storage
from sparsejax.algorithms.wanda import wanda as wanda
