"""Kernels: each is a plain JAX function, and a custom call on CPU."""

from sparsejax.ops.depthwise import depthwise_conv2d as depthwise_conv2d
from sparsejax.ops.depthwise import depthwise_conv2d_reference as depthwise_conv2d_reference
from sparsejax.ops.sparse_matmul import spmm as spmm
from sparsejax.ops.sparse_matmul import spmm_reference as spmm_reference
