"""Layers of compact networks, for linen and NNX: `sj.nn`, imported when it is first asked for."""

from sparsejax.nn.overheads import Overhead as Overhead
from sparsejax.nn.overheads import attention_overhead as attention_overhead
from sparsejax.nn.ulsam import ULSAM as ULSAM
from sparsejax.nn.ulsam import ULSAMLinen as ULSAMLinen
