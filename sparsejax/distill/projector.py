"""Features of a convolutional student as the tokens that a transformer teacher would have."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

_EPSILON = 1e-5  # of both norms, as PyTorch has them
_POSITIONS = jax.nn.initializers.truncated_normal(0.02)
_QUERIES = jax.nn.initializers.normal(1.0)


class CrossAttentionProjector(nnx.Module):
    """A student's map as the teacher's tokens: queries of the teacher's width attend to the pixels.

    The pixels are x = ReLU(BN(conv 3x3)) + a learned position; the queries, learned or given, are
    ReLU(Dense(query)). Attention over all pixels, with logits 5 / sqrt(head size) q.k and no
    identity beside it, then n = LayerNorm, and n + MLP(n). It is trained with the student, and
    dropped with the teacher.

    Args:
      in_channels: of the student's map.
      out_channels: of the teacher's tokens, in multiples of `num_heads`.
      grid: height and width of the student's map, and of the tokens.
      num_heads: of the attention.
      own_query: False where each call gives the queries, so that none are learned.
      sharpness: what the logits are multiplied by.
      rngs: as for every NNX module.

    Raises:
      ValueError: the heads do not divide the channels, or a call's map has another shape.

    Example:
      >>> from flax import nnx
      >>> projector = sj.distill.CrossAttentionProjector(
      ...     8, 16, grid=(4, 4), num_heads=2, rngs=nnx.Rngs(0)
      ... )
      >>> projector(jnp.ones((2, 4, 4, 8))).shape
      (2, 16, 16)

    Reference: Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers",
    NeurIPS 2024, arXiv 2411.06786, cross attention projector; as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        grid: tuple[int, int],
        num_heads: int = 8,
        own_query: bool = True,
        sharpness: float = 5.0,
        rngs: nnx.Rngs,
    ):
        if out_channels % num_heads:
            raise ValueError(
                f"CrossAttentionProjector needs out_channels in multiples of num_heads={num_heads}"
                f", got {out_channels}; choose another number of heads."
            )
        self.grid, self.num_heads, self.sharpness = tuple(grid), num_heads, sharpness
        self.conv = nnx.Conv(in_channels, in_channels, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(in_channels, momentum=0.9, epsilon=_EPSILON, rngs=rngs)
        self.positions = nnx.Param(_POSITIONS(rngs.params(), (*grid, in_channels)))
        tokens = grid[0] * grid[1]
        self.query = (
            nnx.Param(_QUERIES(rngs.params(), (tokens, out_channels))) if own_query else None
        )
        self.from_query = nnx.Linear(out_channels, out_channels, rngs=rngs)
        self.to_queries = nnx.Linear(out_channels, out_channels, rngs=rngs)
        self.to_keys = nnx.Linear(in_channels, out_channels, rngs=rngs)
        self.to_values = nnx.Linear(in_channels, out_channels, rngs=rngs)
        self.to_tokens = nnx.Linear(out_channels, out_channels, rngs=rngs)
        self.token_norm = nnx.LayerNorm(out_channels, epsilon=_EPSILON, rngs=rngs)
        self.widen = nnx.Linear(out_channels, 4 * out_channels, rngs=rngs)
        self.narrow = nnx.Linear(4 * out_channels, out_channels, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        query: Float[Array, "batch tokens out_channels"] | None = None,
    ) -> Float[Array, "batch tokens out_channels"]:
        """One token a pixel; with `query`, those in place of the learned ones."""
        if x.shape[1:3] != self.grid:
            raise ValueError(
                f"CrossAttentionProjector needs maps of {self.grid}, got shape {x.shape}."
            )
        if query is None and self.query is None:
            raise ValueError("This projector has no query of its own: call it with query=.")
        if query is None:
            query = self.query[...][None]  # type: ignore[index]
        pixels = nnx.relu(self.norm(self.conv(x))) + self.positions[...]
        pixels = pixels.reshape(len(x), -1, x.shape[-1])
        queries = self._heads(self.to_queries(nnx.relu(self.from_query(query))))
        queries = jnp.broadcast_to(queries, (len(x), *queries.shape[1:]))
        scale = self.sharpness * queries.shape[-1] ** -0.5
        tokens = jax.nn.dot_product_attention(
            queries,
            self._heads(self.to_keys(pixels)),
            self._heads(self.to_values(pixels)),
            scale=scale,
        )
        tokens = tokens.reshape(*tokens.shape[:2], -1)
        tokens = self.token_norm(self.to_tokens(tokens))
        return tokens + self.narrow(nnx.relu(self.widen(tokens)))

    def _heads(self, tokens: Array) -> Array:
        return tokens.reshape(*tokens.shape[:-1], self.num_heads, -1)
