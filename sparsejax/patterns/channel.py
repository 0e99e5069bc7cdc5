"""Whole channels are pruned as one; packed as the kept channels."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparsejax.patterns.boxes import Boxes
from sparsejax.patterns.layout import LAYOUTS, Layout
from sparsejax.patterns.pattern import AnyArray, Orientation, Shape, Unsaid, kept_weights, subject


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "indices"],
    meta_fields=["leaf_shape", "axis"],
)
@dataclass(frozen=True)
class KeptChannels:
    """A smaller leaf, with the index of each channel that it kept; indices ascend."""

    values: Float[AnyArray, "..."]
    indices: Int[AnyArray, "num_kept"]
    leaf_shape: Shape
    axis: int

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros in the pruned channels."""
        return self._dense()

    @partial(jax.jit, inline=True)  # one program, also for who calls it without jit
    def _dense(self) -> Any:
        kept = jnp.moveaxis(jnp.asarray(self.values), self.axis, 0)
        dense = jnp.zeros((self.leaf_shape[self.axis], *kept.shape[1:]), kept.dtype)
        return jnp.moveaxis(dense.at[self.indices].set(kept), 0, self.axis)

    def gather(self, weights: Float[AnyArray, "..."]) -> "KeptChannels":
        """The same structure with the values of a dense leaf."""
        return replace(self, values=self._values(jnp.asarray(weights)))

    @partial(jax.jit, inline=True)
    def _values(self, weights: Any) -> Any:
        return jnp.take(weights, self.indices, axis=self.axis)


@dataclass(frozen=True)
class Channel(Boxes):
    """Slices along `axis` are pruned as one: -1 output and -2 input channels of a flax kernel."""

    axis: int = Unsaid(-1)

    def pack(self, weights: Any, mask: Any = None) -> KeptChannels:
        """The channels with a kept weight; pruned weights inside a stored channel are 0."""
        weights, kept = kept_weights(weights, mask)
        self._box(weights.shape)
        axis = self.axis % weights.ndim
        others = tuple(other for other in range(weights.ndim) if other != axis)
        indices = np.flatnonzero(kept.any(others)).astype(np.int32)
        pruned = np.where(kept, weights, np.zeros((), weights.dtype))
        return KeptChannels(np.take(pruned, indices, axis), indices, weights.shape, self.axis)

    def orientation(self) -> Orientation:
        """Channels are outputs or inputs."""
        return Orientation("axis", self.axis, of_either=True)

    def layouts(self) -> tuple[Layout, ...]:
        """All: outputs share a pruned input, and a pruned output is an empty row."""
        return LAYOUTS

    def _name(self) -> str:
        return f"Channel({self.axis})"

    def _box(self, shape: Shape, path: str = "") -> Shape:
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(
                f"{subject(path)}{self._name()} needs axis {self.axis}, got shape {shape}; "
                "choose an axis of the leaf."
            )
        return tuple(1 if axis == self.axis % len(shape) else n for axis, n in enumerate(shape))
