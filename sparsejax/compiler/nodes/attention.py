"""Attention of heads over sequences of rows, with its mask."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import RowsOp
from sparsejax.ops._ffi import CODES

ATTENTION = "attention"  # in xla_ops/engine/codes.def
LEFT_OUT = np.array([0x7FC0FFEE], np.uint32).view(np.float32)[0]  # a NaN that no sum gives


def heads_of(x: jax.Array, first: np.ndarray, size: int) -> jax.Array:
    """(..., heads, size) of channels (..., channels) of which heads begin at `first`."""
    if x.shape[-1] == len(first) * size and (np.diff(first, prepend=-size) == size).all():
        return x.reshape(*x.shape[:-1], len(first), size)
    return x[..., np.asarray(first[:, None] + np.arange(size), np.int32)]


def masked_by(kind: str, numbers: jax.Array, scores: jax.Array, fill: np.ndarray) -> jax.Array:
    """Scores with numbers that are added, that select, or that do both."""
    if kind.startswith("add"):
        return scores + numbers
    if kind.startswith("select"):
        return jnp.where(numbers != 0, scores, fill)
    bits = jax.lax.bitcast_convert_type(numbers.astype(np.float32), np.uint32)
    return jnp.where(bits == LEFT_OUT.view(np.uint32), fill, scores + numbers)


@dataclass(frozen=True, eq=False)
class Attention(RowsOp):
    """softmax(scale q k^T, masked) v of each head; inputs [q, k, v] or [q, k, v, mask], of rows.

    Attributes:
        first: (3, heads): the channels of q, k and v where each head begins; heads may share them.
        size: channels of a head in q and k.
        value_size: in v, and in the output, where heads lie one behind the other.
        length: of a sequence: the last axis but one.
        mask: "none", "causal", or what the fourth input has: "add_keys" and "select_keys" one
            number for each key (..., length, 1); "add_queries" and "select_queries" one for each
            query and key (..., length, length), or for each head, too; "add_causal" selects then,
            and "choose_queries" adds, but leaves out those whose number is LEFT_OUT.
        scale: of the scores.
        fill: the score of what the mask leaves out.
    """

    first: np.ndarray
    size: int
    value_size: int
    length: int
    mask: str
    scale: float
    fill: float

    def __str__(self) -> str:
        """Heads, their size, length and mask."""
        heads = self.first.shape[1]
        return f"Attention {heads}x{self.size} {self.value_size} {self.length} {self.mask}"

    @property
    def rows_meet(self) -> bool:
        return True

    def evaluate(self, *inputs: jax.Array) -> list[jax.Array]:
        sizes = (self.size, self.size, self.value_size)
        if inputs[0].ndim == 4:  # images of width 1
            (result,) = self.evaluate(*(x[:, :, 0] for x in inputs))
            return [result[:, :, None]]
        q, k, v = map(heads_of, inputs[:3], self.first, sizes)
        scores = jnp.einsum("...qhd,...khd->...hqk", q, k) * np.asarray(self.scale, q.dtype)
        weights = jax.nn.softmax(self._masked(scores, *inputs[3:]))
        result = jnp.einsum("...hqk,...khd->...qhd", weights, v)
        return [result.reshape(*result.shape[:-2], -1)]

    def _masked(self, scores: jax.Array, *mask: jax.Array) -> jax.Array:
        fill = np.asarray(self.fill, scores.dtype)
        if not mask:
            causal = np.tri(self.length, dtype=bool)
            return scores if self.mask == "none" else jnp.where(causal, scores, fill)
        (numbers,) = mask
        if self.mask.endswith("keys"):
            numbers = numbers[..., None, None, :, 0]
        else:
            split = (*numbers.shape[:-1], -1, self.length)
            numbers = jnp.swapaxes(numbers.reshape(split), -2, -3)
        if self.mask == "add_causal":
            return jnp.where(np.tri(self.length, dtype=bool), scores + numbers, fill)
        return masked_by(self.mask, numbers, scores, fill)

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        numbers = (self.first.shape[1], self.size, self.value_size, self.length)
        channels = (*numbers, CODES["mask"][self.mask], *self.first.ravel())
        to.add(
            node,
            ATTENTION,
            activation=Activation("identity", self.scale, self.fill),
            channels=channels,
        )
