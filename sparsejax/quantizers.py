"""Quantizers under which a pruned weight stays exactly zero."""

from sparsejax.algorithms.quantizers.dkm import dkm as dkm
from sparsejax.algorithms.quantizers.dorefa import dorefa as dorefa
from sparsejax.algorithms.quantizers.ewgs import ewgs as ewgs
from sparsejax.algorithms.quantizers.lsq import lsq as lsq
from sparsejax.algorithms.quantizers.pact import pact as pact
from sparsejax.algorithms.quantizers.post_training import (
    asymmetric_quantizer as asymmetric_quantizer,
)
from sparsejax.algorithms.quantizers.post_training import quantized as quantized
from sparsejax.algorithms.quantizers.post_training import symmetric_quantizer as symmetric_quantizer
