"""3x3 kernels keep four weights in one of eight patterns, filters equally many kernels."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from sparsejax import top_k
from sparsejax.patterns.pattern import (
    AnyArray,
    Orientation,
    Pattern,
    Shape,
    Unsaid,
    check_mask,
    kept_weights,
    subject,
)

# Row and column of the five weights that each pattern removes.
_REMOVED = (
    *("00 01 02 10 20", "00 01 02 12 22", "00 10 20 21 22", "02 12 20 21 22"),
    *("00 01 02 10 11", "00 01 02 20 22", "00 02 10 20 22", "00 02 12 20 22"),
)
_KEPT = np.array(
    [[f"{r}{c}" not in removed.split() for r in range(3) for c in range(3)] for removed in _REMOVED]
)
_POSITIONS = np.stack([np.flatnonzero(pattern) for pattern in _KEPT]).astype(np.int32)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "indices", "patterns", "row_starts"],
    meta_fields=["leaf_shape", "output_axis"],
)
@dataclass(frozen=True)
class PackedKernels:
    """The kernels filter by filter: four values, the input channel and which of eight patterns."""

    values: Float[AnyArray, "num_kernels 4"]
    indices: Int[AnyArray, "num_kernels"]
    patterns: UInt[AnyArray, "num_kernels"]
    row_starts: Int[AnyArray, "filters_plus_1"]
    leaf_shape: Shape
    output_axis: int = field(default=-1)

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros where nothing is stored."""
        return self._dense()

    @partial(jax.jit, inline=True)  # one program, also for who calls it without jit
    def _dense(self) -> Any:
        kernels = _kernels(jnp.zeros(self.leaf_shape, self.values.dtype), self.output_axis)
        kernels = kernels.at[self._where()].set(self.values)
        return _from_kernels(kernels, self.output_axis)

    def gather(self, weights: Float[AnyArray, "..."]) -> "PackedKernels":
        """The same structure with the values of a dense leaf."""
        return replace(self, values=self._values(jnp.asarray(weights)))

    @partial(jax.jit, inline=True)
    def _values(self, weights: Any) -> Any:
        return _kernels(weights, self.output_axis)[self._where()]

    def _where(self) -> tuple[Any, Any, Any]:
        counts = jnp.diff(jnp.asarray(self.row_starts))
        filters = jnp.arange(len(counts), dtype=counts.dtype)
        filters = jnp.repeat(filters, counts, total_repeat_length=self.indices.shape[0])
        positions = jnp.asarray(_POSITIONS)[jnp.asarray(self.patterns)]
        return filters[:, None], jnp.asarray(self.indices)[:, None], positions


@dataclass(frozen=True)
class KernelPattern(Pattern):
    """MEST's pattern pruning with filter balance: four weights a 3x3 kernel, equal filters.

    Each kernel takes the pattern of the eight that holds the largest sum of squares; from the
    sparsity 5/9 on whole kernels go, the weakest of each filter in turn, so that the numbers of
    kernels that two filters keep differ by at most one. At the sparsity s of the leaf a filter
    keeps (1 - s) * 9/4 of its kernels; the count of weights is exact, and one kernel may be cut.
    Below 5/9, on a ramp, the patterns are safe and the rest is pruned by score.

    `output_axis` is -1 for flax kernels (3, 3, in, out) and 0 for Equinox ones (out, in, 3, 3).

    Reference: Yuan et al., "MEST: Accurate and Fast Memory-Economic Sparse Training Framework on
    the Edge", NeurIPS 2021, arXiv 2110.14032; patterns as in the authors' code.
    """

    output_axis: int = Unsaid(-1)

    def mask(
        self,
        scores: Float[Array, "..."],
        sparsity: float | Float[Array, ""],
        *,
        keep: Bool[Array, "..."] | None = None,
        allowed: Bool[Array, "..."] | None = None,
    ) -> Bool[Array, "..."]:
        """The mask with an exact count: patterns before other weights, balanced between filters."""
        self.validate(scores.shape)
        num_kept = scores.size - top_k.count_pruned(sparsity, scores.size)
        return _best(scores, num_kept, keep, allowed, self.output_axis)

    def group_scores(self, scores: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The scores themselves."""
        return scores

    def num_groups(self, shape: Shape) -> int:
        """The number of weights: each is counted by itself."""
        return int(np.prod(shape))

    def max_sparsity(self, shape: Shape) -> float:
        """1.0: every kernel can go."""
        return 1.0

    def validate(self, shape: Shape, path: str = "") -> None:
        """Raise a ValueError when the leaf has no 3x3 kernels."""
        sides = shape[:2] if self.output_axis == -1 else shape[2:]
        if self.output_axis not in (-1, 0) or len(shape) != 4 or sides != (3, 3):
            raise ValueError(
                f"{subject(path)}KernelPattern({self.output_axis}) needs 3x3 kernels, (3, 3, in, "
                "out) for output_axis=-1 and (out, in, 3, 3) for output_axis=0, got shape "
                f"{shape}; choose another pattern."
            )

    def check(self, mask: Bool[AnyArray, "..."], path: str = "") -> None:
        """Raise a ValueError when a kernel fits no pattern or filters are out of balance."""
        kept = check_mask(mask, path)
        self.validate(kept.shape, path)
        kernels = _kernels(kept, self.output_axis)
        misfits = (_choices(kernels) < 0).sum()
        counts = kernels.any(2).sum(1)
        if misfits or counts.max() - counts.min() > 1:
            raise ValueError(
                f"{subject(path)}KernelPattern needs each kernel within one of its patterns and "
                f"as many kernels in each filter, got {misfits} misfits and {counts.min()} to "
                f"{counts.max()} kernels; build the mask with KernelPattern.mask at a sparsity of "
                "5/9 or more."
            )

    def pack(self, weights: Any, mask: Any = None) -> PackedKernels:
        """The kernels with a kept weight; pruned weights inside a stored one are 0."""
        weights, kept = kept_weights(weights, mask)
        self.validate(weights.shape)
        kernels = _kernels(np.where(kept, weights, np.zeros((), weights.dtype)), self.output_axis)
        view = _kernels(kept, self.output_axis)
        filters, indices = np.nonzero(view.any(2))
        patterns = _choices(view[filters, indices])
        if (patterns < 0).any():
            raise ValueError(
                f"pack needs each kernel within one of the patterns, got {(patterns < 0).sum()} "
                "that are not; give it a mask of KernelPattern.mask."
            )
        return PackedKernels(
            values=np.take_along_axis(kernels[filters, indices], _POSITIONS[patterns], 1),
            indices=indices.astype(np.int32),
            patterns=patterns.astype(np.uint8),
            row_starts=np.searchsorted(filters, np.arange(len(view) + 1)).astype(np.int32),
            leaf_shape=weights.shape,
            output_axis=self.output_axis,
        )

    def orientation(self) -> Orientation:
        """Filters are outputs."""
        return Orientation("output_axis", self.output_axis)


def _kernels(leaf: Any, output_axis: int) -> Any:
    """The leaf as (filters, kernels, 9); NumPy stays NumPy."""
    if output_axis == 0:
        return leaf.reshape(*leaf.shape[:2], 9)
    return leaf.reshape(9, *leaf.shape[2:]).transpose(2, 1, 0)


def _from_kernels(kernels: Any, output_axis: int) -> Any:
    """The inverse of `_kernels`."""
    if output_axis == 0:
        return kernels.reshape(*kernels.shape[:2], 3, 3)
    return kernels.transpose(2, 1, 0).reshape(3, 3, kernels.shape[1], kernels.shape[0])


def _choices(kept: np.ndarray) -> np.ndarray:
    """The first pattern that holds all the kept weights of a kernel, -1 for none."""
    holds = ~(kept[..., None, :] & ~_KEPT).any(-1)
    return np.where(holds.any(-1), holds.argmax(-1), -1)


@partial(jax.jit, static_argnames="output_axis")
def _best(
    scores: Any, num_kept: Any, keep: Any, allowed: Any, output_axis: int
) -> Bool[Array, "..."]:
    """The best weights in the order of `_classes` and, in each class, of `_ranked`."""
    view = lambda part: None if part is None else _kernels(part, output_axis)
    sizes = jnp.abs(jnp.nan_to_num(_kernels(scores, output_axis).astype(jnp.float32)))
    squares = jnp.square(jnp.minimum(sizes, 1e15))
    inside, ranks = _ranked(squares, view(keep), view(allowed))
    classes = _classes(inside, view(keep), view(allowed))
    kept = top_k.ranked_top_k_mask(jnp.where(inside, -ranks, squares), num_kept, classes)
    return _from_kernels(kept, output_axis)


def _ranked(squares: Any, keep: Any, allowed: Any) -> tuple[Any, Any]:
    """The weights inside their kernels' patterns, and the order in which they are kept, from 0.

    A kernel's pattern holds most of `keep`, then most of `allowed`, then the largest sum.
    """
    patterns = jnp.asarray(_KEPT.T, jnp.float32)
    candidates = jnp.ones((*squares.shape[:2], len(_KEPT)), bool)
    keys = []
    for members in (keep, allowed):
        if members is not None:
            held = jnp.where(candidates, members.astype(jnp.float32) @ patterns, -1.0)
            candidates = held == held.max(-1, keepdims=True)
            keys.append(held.max(-1) > 0.0)
    sums = jnp.where(candidates, squares @ patterns, -1.0)
    inside = jnp.asarray(_KEPT)[sums.argmax(-1)]
    filters = jnp.arange(len(squares), dtype=jnp.int32)[:, None]
    order = _rank_in_filter([*keys, sums.max(-1)]) * len(squares) + filters
    in_kernel = jnp.cumsum(inside, -1, dtype=jnp.int32)
    return inside, (4 * order[..., None] + in_kernel - 1).astype(jnp.float32)


def _rank_in_filter(keys: list[Any]) -> Int[Array, "filters kernels"]:
    """How many kernels of its filter come before each: by the first key, then the second, ...

    Compares all pairs: XLA takes minutes to compile the sorts of 20 layers, seconds of this.
    """
    index = jnp.arange(keys[0].shape[1])
    before = jnp.broadcast_to(
        index[None, :] < index[:, None], (len(keys[0]), len(index), len(index))
    )
    for key in reversed(keys):
        own, other = key[:, :, None], key[:, None, :]
        before = (other > own) | ((other == own) & before)
    return before.sum(-1, dtype=jnp.int32)


def _classes(inside: Any, keep: Any, allowed: Any) -> list[Any]:
    """Nested masks: what is kept first comes first; in each class patterns before the rest."""
    classes: list[Any] = []
    for members in (keep, allowed):
        if members is not None:
            before = classes[-1] if classes else jnp.zeros_like(inside)
            classes += [before | (inside & members), before | members]
    return [*classes, classes[-1] | inside] if classes else [inside]
