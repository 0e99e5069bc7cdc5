"""What a group norm multiplies each channel of an image by, and adds."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import sides
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import ImageOp, numbers

MOMENTS = "moments"  # in xla_ops/engine/codes.def


@dataclass(frozen=True, eq=False)
class Moments(ImageOp):
    """scale / sqrt(variance + epsilon) of each channel, then shift - mean times that.

    Attributes:
        scale, shift: (channels,).
        epsilon: is added to the variance.
        groups: of channels, which share mean and variance over all pixels.
        channels_last: NHWC rather than NCHW; the output is one pixel of twice the channels.
    """

    scale: np.ndarray
    shift: np.ndarray
    epsilon: float
    groups: int
    channels_last: bool = True

    def __str__(self) -> str:
        """Size and groups."""
        return f"Moments {self.scale.size} in {self.groups}"

    def in_order(self, channels_last: bool) -> "Moments | None":
        return self if channels_last == self.channels_last else None

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        x = jnp.moveaxis(x, self.axis, 1)
        grouped = x.reshape(x.shape[0], self.groups, -1)
        mean = grouped.mean(2, keepdims=True)
        variance = jnp.square(grouped - mean).mean(2, keepdims=True)
        scale, shift = (numbers(a, x).reshape(self.groups, -1) for a in (self.scale, self.shift))
        factor = scale * jax.lax.rsqrt(variance + np.asarray(self.epsilon, x.dtype))
        both = jnp.stack([factor, shift - mean * factor], 1).reshape(x.shape[0], -1)
        return [jnp.expand_dims(both, sides(self.channels_last))]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        weights, bias = (to.keep(np.tile(array, 2)) for array in (self.scale, self.shift))
        epsilon = Activation(low=self.epsilon)
        channels = (self.groups,)
        to.add(node, MOMENTS, activation=epsilon, weights=weights, bias=bias, channels=channels)
