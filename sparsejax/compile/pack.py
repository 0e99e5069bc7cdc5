"""Weights of layers as the kernels take them, shared between programs."""

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compile.graph_old import Layer
from sparsejax.compile.select import Choice


@dataclass
class Packer:
    """Packs each weight once, whatever number of layers and input shapes use it."""

    packed: dict[tuple, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, layer: Layer, choice: Choice) -> tuple[Any, jax.Array]:
        """The weights (CSR, BSR, or a dense array) and the bias, as constants of a program."""
        weights = layer.weights.astype(np.float32)
        digest = hashlib.blake2b(weights.tobytes()).digest()
        key = (digest, weights.shape, choice.kernel, choice.pattern)
        with self.lock, jax.ensure_compile_time_eval():
            if key not in self.packed:
                self.packed[key] = _pack(layer, weights, choice)
            return self.packed[key], jnp.asarray(layer.bias.astype(np.float32))


def _pack(layer: Layer, weights: np.ndarray, choice: Choice) -> Any:
    if choice.pattern is None:
        return jnp.asarray(weights)
    try:
        packed = choice.pattern.pack(layer.matrix)
    except ValueError as error:
        raise ValueError(f"compile could not pack {layer.path}: {error}") from error
    return jax.tree.map(jnp.asarray, packed)
