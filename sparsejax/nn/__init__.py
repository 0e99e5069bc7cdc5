"""Layers of compact networks, for linen and NNX: `sj.nn`, imported when it is first asked for."""

from sparsejax.nn.group_conv import GroupConv as GroupConv
from sparsejax.nn.group_conv import GroupConvCost as GroupConvCost
from sparsejax.nn.group_conv import GroupConvLinen as GroupConvLinen
from sparsejax.nn.group_conv import best_group_size as best_group_size
from sparsejax.nn.group_conv import group_conv_cost as group_conv_cost
from sparsejax.nn.overheads import Overhead as Overhead
from sparsejax.nn.overheads import attention_overhead as attention_overhead
from sparsejax.nn.ulsam import ULSAM as ULSAM
from sparsejax.nn.ulsam import ULSAMLinen as ULSAMLinen
