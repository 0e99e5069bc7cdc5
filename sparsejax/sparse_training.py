"""Sparse all along, beyond `sj.rigl`, `sj.sparse_evolution` and `sj.static_random`."""

from sparsejax.algorithms.sparse_training.gap import combine_parts as combine_parts
from sparsejax.algorithms.sparse_training.gap import gap as gap
from sparsejax.algorithms.sparse_training.gap import gap_parts as gap_parts
from sparsejax.algorithms.sparse_training.gap import grown_part as grown_part
from sparsejax.algorithms.sparse_training.mest import mest_em as mest_em
from sparsejax.algorithms.sparse_training.mest import mest_ems as mest_ems
