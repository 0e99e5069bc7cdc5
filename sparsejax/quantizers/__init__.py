"""The quantizers, one paper a file: Reparams under which a pruned weight stays exactly zero."""

from sparsejax.quantizers.dkm import dkm as dkm
from sparsejax.quantizers.dorefa import dorefa as dorefa
from sparsejax.quantizers.ewgs import ewgs as ewgs
from sparsejax.quantizers.lsq import lsq as lsq
from sparsejax.quantizers.pact import pact as pact
from sparsejax.quantizers.post_training import asymmetric_quantizer as asymmetric_quantizer
from sparsejax.quantizers.post_training import quantized as quantized
from sparsejax.quantizers.post_training import symmetric_quantizer as symmetric_quantizer
