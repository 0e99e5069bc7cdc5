"""Train sparse, run sparse in JAX: exact masks for any optax optimizer, and kernels that make them fast."""

from importlib.metadata import version as _version

__version__ = _version("sparsejax")
