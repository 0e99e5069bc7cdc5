"""Pruning in training, beyond `sj.gmp`, `sj.global_mp` and `sj.one_shot`."""

from sparsejax.algorithms.pruning.ac_dc import ac_dc as ac_dc
from sparsejax.algorithms.pruning.fast_sparse_convnets import block_rows as block_rows
from sparsejax.algorithms.pruning.fast_sparse_convnets import (
    fast_sparse_convnets as fast_sparse_convnets,
)
from sparsejax.algorithms.pruning.iht import iht as iht
