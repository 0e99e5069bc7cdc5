"""The patterns: which positions of a leaf may be nonzero, and how the nonzeros are stored."""

from sparsejax.patterns.block import BSR as BSR
from sparsejax.patterns.block import Block as Block
from sparsejax.patterns.block_column_row import BCRC as BCRC
from sparsejax.patterns.block_column_row import BlockColumnRow as BlockColumnRow
from sparsejax.patterns.channel import Channel as Channel
from sparsejax.patterns.channel import KeptChannels as KeptChannels
from sparsejax.patterns.kernel_group import KernelGroup as KernelGroup
from sparsejax.patterns.kernel_pattern import KernelPattern as KernelPattern
from sparsejax.patterns.kernel_pattern import PackedKernels as PackedKernels
from sparsejax.patterns.n_of_m import NM as NM
from sparsejax.patterns.n_of_m import PackedNM as PackedNM
from sparsejax.patterns.pattern import Packed as Packed
from sparsejax.patterns.pattern import Pattern as Pattern
from sparsejax.patterns.unstructured import CSR as CSR
from sparsejax.patterns.unstructured import Unstructured as Unstructured
