"""Train sparse, run sparse in JAX: exact masks for any optimizer, kernels that make them fast."""

from importlib.metadata import version as _version

from sparsejax.patterns import BSR as BSR
from sparsejax.patterns import CSR as CSR
from sparsejax.patterns import NM as NM
from sparsejax.patterns import Block as Block
from sparsejax.patterns import Channel as Channel
from sparsejax.patterns import Pattern as Pattern
from sparsejax.patterns import Unstructured as Unstructured

__version__ = _version("sparsejax")
