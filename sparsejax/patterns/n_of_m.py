"""At most n of every m consecutive weights along one axis are nonzero."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt

from sparsejax import top_k
from sparsejax.patterns.pattern import (
    AnyArray,
    Orientation,
    Pattern,
    Quota,
    Shape,
    Unsaid,
    check_mask,
    kept_weights,
    subject,
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "indices"],
    meta_fields=["n", "m", "axis", "leaf_shape"],
)
@dataclass(frozen=True)
class PackedNM:
    """n values and their positions (0..m-1, ascending) of every m weights along `axis`."""

    values: Float[AnyArray, "..."]
    indices: UInt[AnyArray, "..."]
    n: int
    m: int
    axis: int
    leaf_shape: Shape

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros where nothing is stored."""
        return self._dense()

    @partial(jax.jit, inline=True)  # one program, also for who calls it without jit
    def _dense(self) -> Any:
        dense = jnp.zeros(self.leaf_shape, self.values.dtype)
        where = self._positions()
        return jnp.put_along_axis(dense, where, self.values, self.axis, inplace=False)

    def gather(self, weights: Float[AnyArray, "..."]) -> "PackedNM":
        """The same structure with the values of a dense leaf."""
        return replace(self, values=self._values(jnp.asarray(weights)))

    @partial(jax.jit, inline=True)
    def _values(self, weights: Any) -> Any:
        return jnp.take_along_axis(weights, self._positions(), self.axis)

    def _positions(self) -> Any:
        axis = self.axis % len(self.leaf_shape)
        lengths = [1] * len(self.leaf_shape)
        lengths[axis] = self.indices.shape[axis]
        group_starts = np.arange(lengths[axis], dtype=np.int32) // self.n * self.m
        return jnp.asarray(self.indices, jnp.int32) + group_starts.reshape(lengths)


@dataclass(frozen=True)
class NM(Pattern):
    """n of every m consecutive weights along `axis` stay: -2, the inputs, for flax kernels.

    The plan's target is 1 - n/m. Below it, on a ramp, the n best of each group are safe and the
    rest is pruned by score over the whole leaf, so that the count is exact at every step and n:m
    holds at the target.
    """

    n: int
    m: int
    axis: int = Unsaid(-2)

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m <= 256:
            raise ValueError(f"{self._name()} needs 1 <= n <= m <= 256; choose such n and m.")

    def mask(
        self,
        scores: Float[Array, "..."],
        sparsity: float | Float[Array, ""],
        *,
        keep: Bool[Array, "..."] | None = None,
        allowed: Bool[Array, "..."] | None = None,
    ) -> Bool[Array, "..."]:
        """The mask with an exact count that never prunes the n best of a group."""
        self.validate(scores.shape)
        highest = self.max_sparsity(scores.shape)
        if isinstance(sparsity, float) and sparsity > highest:
            raise ValueError(
                f"{self._name()} prunes at most {highest:g} of a leaf, got sparsity {sparsity:g}; "
                "lower it or choose another pattern."
            )
        num_kept = scores.size - top_k.count_pruned(sparsity, scores.size)
        return self.keep_best(scores, num_kept, keep, allowed)

    @partial(jax.jit, static_argnums=0)  # one program, also for who calls it without jit
    def keep_best(self, scores: Any, num_kept: Any, keep: Any, allowed: Any) -> Bool[Array, "..."]:
        """The mask of so many weights, or of the n best of each group if those are more."""
        classes = [self._best_of_groups(scores, keep, allowed)]
        for members in (keep, allowed):
            if members is not None:
                classes.append(classes[-1] | members)
        num_safe = scores.size // self.m * self.n
        return top_k.ranked_top_k_mask(scores, jnp.maximum(num_kept, num_safe), classes)

    def group_scores(self, scores: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The scores themselves."""
        return scores

    def num_groups(self, shape: Shape) -> int:
        """The number of weights: each is pruned by itself, within its group's limit."""
        return int(np.prod(shape))

    def max_sparsity(self, shape: Shape) -> float:
        """1 - n/m."""
        return 1.0 - self.n / self.m

    def validate(self, shape: Shape, path: str = "") -> None:
        """Raise a ValueError when groups do not tile the axis."""
        present = -len(shape) <= self.axis < len(shape)
        if not present or shape[self.axis] % self.m:
            axis = "the last axis" if self.axis == -1 else f"axis {self.axis}"
            raise ValueError(
                f"{subject(path)}{self._name()} needs {axis} to be a multiple of {self.m}, "
                f"got shape {shape}."
            )

    def check(self, mask: Bool[AnyArray, "..."], path: str = "") -> None:
        """Raise a ValueError when a group keeps more than n."""
        kept = check_mask(mask, path)
        self.validate(kept.shape, path)
        counts = self._split(kept).sum(self._axis(kept) + 1)
        if (counts > self.n).any():
            raise ValueError(
                f"{subject(path)}{self._name()} needs at most {self.n} kept in each group of "
                f"{self.m}, got {counts.max()}; prune with {self._name()}.mask at sparsity "
                f"{1 - self.n / self.m:g}."
            )

    def pack(self, weights: Any, mask: Any = None) -> PackedNM:
        """n values a group; a group with fewer kept weights stores zeros besides."""
        weights, kept = kept_weights(weights, mask)
        self.check(kept)
        axis = self._axis(weights) + 1
        order = np.argsort(~self._split(kept), axis=axis, kind="stable")
        positions = np.sort(np.take(order, range(self.n), axis), axis)
        pruned = np.where(kept, weights, np.zeros((), weights.dtype))
        values = np.take_along_axis(self._split(pruned), positions, axis)
        stored = list(weights.shape)
        stored[axis - 1] = weights.shape[axis - 1] // self.m * self.n
        indices = positions.astype(np.uint8).reshape(stored)
        return PackedNM(values.reshape(stored), indices, self.n, self.m, self.axis, weights.shape)

    def orientation(self) -> Orientation:
        """Along inputs, which must be those of one sum."""
        return Orientation("axis", self.axis, of_inputs=True, contracted=True)

    def quota(self, shape: Shape) -> Quota:
        """n of every m along the axis."""
        axis = self.axis % len(shape)
        return Quota(self.n, tuple(self.m if own == axis else 1 for own in range(len(shape))))

    def _best_of_groups(self, scores: Any, keep: Any, allowed: Any) -> Bool[Array, "..."]:
        """The n best of each group: `keep` first, then `allowed`, then by score and index."""
        axis = self._axis(scores) + 1
        better: Any = False
        tied: Any = True
        later = np.arange(self.m)[:, None] > np.arange(self.m)
        for ranking in (keep, allowed, top_k.ordered_keys(scores)):
            if ranking is not None:
                groups = jnp.moveaxis(self._split(ranking), axis, -1)
                mine, other = groups[..., :, None], groups[..., None, :]
                better = better | (tied & (other > mine))
                tied = tied & (other == mine)
        rank = jnp.sum(better | (tied & later), axis=-1, dtype=jnp.int32)
        return jnp.moveaxis(rank < self.n, -1, axis).reshape(scores.shape)

    def _split(self, array: Any) -> Any:
        axis = self._axis(array)
        return array.reshape(*array.shape[:axis], -1, self.m, *array.shape[axis + 1 :])

    def _axis(self, array: Any) -> int:
        return self.axis % array.ndim

    def _name(self) -> str:
        return f"NM({self.n}, {self.m})"
