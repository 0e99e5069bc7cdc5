"""Mean and deviation of groups of channels, over the pixels of images."""

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
    """scale * moments + shift: 1 / sqrt(variance + epsilon) of each channel, then the means.

    Attributes:
        scale, shift: (2 * channels,).
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
        return f"Moments {self.scale.size // 2} in {self.groups}"

    def in_order(self, channels_last: bool) -> "Moments | None":
        return self if channels_last == self.channels_last else None

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        x = jnp.moveaxis(x, self.axis, 1)
        grouped = x.reshape(x.shape[0], self.groups, -1)
        mean = grouped.mean(2)
        variance = jnp.square(grouped - mean[..., None]).mean(2)
        factor = jax.lax.rsqrt(variance + np.asarray(self.epsilon, x.dtype))
        both = jnp.repeat(jnp.concatenate([factor, mean], 1), x.shape[1] // self.groups, 1)
        scale, shift = (numbers(array, x) for array in (self.scale, self.shift))
        return [jnp.expand_dims(scale * both + shift, sides(self.channels_last))]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        weights, bias = to.keep(self.scale), to.keep(self.shift)
        epsilon = Activation(low=self.epsilon)
        channels = (self.groups,)
        to.add(node, MOMENTS, activation=epsilon, weights=weights, bias=bias, channels=channels)
