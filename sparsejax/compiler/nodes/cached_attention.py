"""Attention of one query to keys and values that lie in memory, and to those of now."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.attention import heads_of, masked_by
from sparsejax.compiler.nodes.op import RowsOp
from sparsejax.ops._ffi import CODES

CACHED_ATTENTION = "cached_attention"  # in xla_ops/engine/codes.def


@dataclass(frozen=True, eq=False)
class CachedAttention(RowsOp):
    """softmax(scale q k^T, masked) v of each head and row, whose keys lie in the row itself.

    Inputs are rows (..., channels): [q, k, v], then, where a step of generation adds to its cache,
    [new k, its place, new v, its place], then the mask, if there is one. A place beside the keys
    is the nearest of them, and NaN is none.

    Attributes:
        first: (3, heads): the channels of q, k and v where each head begins, at key 0.
        steps: from a key, and from a value, to the next.
        newest: (2, heads): the channels of the new key and value where each head begins, or none.
        size: of a head in q and k.
        value_size: in v, and in the output, where heads lie one behind the other.
        length: number of keys.
        mask: "none", "add_queries", "select_queries" or "choose_queries": one number for each key
            (..., length), or for each head and key (..., heads length), as of Attention.
        scale: of the scores.
        fill: the score of what the mask leaves out.
    """

    first: np.ndarray
    steps: tuple[int, int]
    newest: np.ndarray | None
    size: int
    value_size: int
    length: int
    mask: str
    scale: float
    fill: float

    def __str__(self) -> str:
        """Heads, their size, number of keys, and mask."""
        heads, new = self.first.shape[1], "" if self.newest is None else " + 1 new"
        return (
            f"CachedAttention {heads}x{self.size} {self.value_size} {self.length}{new} {self.mask}"
        )

    def evaluate(self, *inputs: jax.Array) -> list[jax.Array]:
        q, keys, values, *rest = inputs
        new = [] if self.newest is None else rest
        k = self._kept(0, keys, self.size, *new[:2])
        v = self._kept(1, values, self.value_size, *new[2:4])
        own = heads_of(q, self.first[0], self.size)
        scores = jnp.einsum("...hd,...khd->...hk", own, k) * np.asarray(self.scale, q.dtype)
        if self.mask != "none":
            numbers = rest[-1].reshape(*q.shape[:-1], -1, self.length)
            scores = masked_by(self.mask, numbers, scores, np.asarray(self.fill, q.dtype))
        result = jnp.einsum("...hk,...khd->...hd", jax.nn.softmax(scores), v)
        return [result.reshape(*result.shape[:-2], -1)]

    def _kept(self, side: int, rows: jax.Array, size: int, *new: jax.Array) -> jax.Array:
        """(..., length, heads, size) of the keys or values, with the new row in its place."""
        key, step, first = np.arange(self.length), self.steps[side], self.first[1 + side]
        if rows.shape[-1] == self.length * step:
            kept = heads_of(rows.reshape(*rows.shape[:-1], self.length, step), first, size)
        else:
            kept = rows[..., (key * step)[:, None, None] + first[:, None] + np.arange(size)]
        if self.newest is None:
            return kept
        row, place = new
        now = heads_of(row, self.newest[side], size)[..., None, :, :]
        at = jnp.floor(jnp.clip(place, 0, self.length - 1))  # NaN stays NaN, which is no key
        return jnp.where((at == key)[..., None, None], now, kept)

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        numbers = (self.first.shape[1], self.size, self.value_size, self.length)
        newest = () if self.newest is None else self.newest.ravel()
        to.add(
            node,
            CACHED_ATTENTION,
            activation=Activation("identity", self.scale, self.fill),
            channels=(
                *numbers,
                CODES["mask"][self.mask],
                *self.first.ravel(),
                *self.steps,
                *newest,
            ),
        )
