"""The box-shaped groups that most patterns are made of."""

import abc
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sparsejax import arrays, top_k
from sparsejax.patterns.pattern import AnyArray, Pattern, Shape, check_mask, subject


class Boxes(Pattern):
    """What patterns have in common whose groups are boxes of the leaf."""

    @abc.abstractmethod
    def _box(self, shape: Shape, path: str = "") -> Shape:
        """The box's extent on each axis of the leaf; a ValueError when boxes do not tile it."""

    @abc.abstractmethod
    def _name(self) -> str:
        """The pattern in an error."""

    def mask(
        self,
        scores: Float[Array, "..."],
        sparsity: float | Float[Array, ""],
        *,
        keep: Bool[Array, "..."] | None = None,
        allowed: Bool[Array, "..."] | None = None,
    ) -> Bool[Array, "..."]:
        """The mask that keeps the groups with the highest sums of scores; exact to one group."""
        num_groups = self.num_groups(scores.shape)
        num_kept = num_groups - top_k.count_pruned(sparsity, num_groups)
        return mask_groups(scores, num_kept, keep, allowed, self._box(scores.shape))

    def group_scores(self, scores: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The sum of each group, in float32 or better; NumPy stays NumPy."""
        return sum_groups(scores, self._box(scores.shape))

    def num_groups(self, shape: Shape) -> int:
        """How many groups the leaf has."""
        pairs = zip(shape, self._box(shape), strict=True)
        return math.prod(n // own if own else 1 for n, own in pairs)

    def max_sparsity(self, shape: Shape) -> float:
        """1.0: every group can go."""
        return 1.0

    def validate(self, shape: Shape, path: str = "") -> None:
        """Raise a ValueError when groups do not tile a leaf of this shape."""
        self._box(shape, path)

    def check(self, mask: Bool[AnyArray, "..."], path: str = "") -> None:
        """Raise a ValueError when a group is neither wholly kept nor wholly pruned."""
        check_boxes(mask, self._box(np.shape(mask), path), self._name(), path)


@partial(jax.jit, static_argnames="box")  # one program, also for who calls it without jit
def mask_groups(
    scores: Float[Array, "..."],
    num_kept: int | Int[Array, ""],
    keep: Bool[Array, "..."] | None,
    allowed: Bool[Array, "..."] | None,
    box: Shape,
) -> Bool[Array, "..."]:
    """The mask that keeps so many whole boxes, by the sum of their scores."""
    if max(box, default=1) > 1:
        keep = None if keep is None else arrays.split_axes(keep, box).any(_inner_axes(box))
        allowed = None if allowed is None else arrays.split_axes(allowed, box).all(_inner_axes(box))
    sums: Any = sum_groups(scores, box)
    return expand_groups(top_k.top_k_mask(sums, num_kept, keep=keep, allowed=allowed), box, scores)


def sum_groups(scores: Float[AnyArray, "..."], box: Shape) -> Float[AnyArray, "..."]:
    """The sum of each box, in float32 or better; NumPy stays NumPy."""
    if max(box, default=1) == 1:
        return scores
    accumulator = jnp.promote_types(scores.dtype, jnp.float32)
    return arrays.split_axes(scores.astype(accumulator), box).sum(_inner_axes(box))


def expand_groups(groups: Bool[Array, "..."], box: Shape, like: Array) -> Bool[Array, "..."]:
    """The array in which each box holds the value of its group; shaped and sharded as `like`."""
    if max(box, default=1) == 1:
        return groups
    split = jax.eval_shape(lambda: arrays.split_axes(like, box)).shape
    spread = jnp.broadcast_to(jnp.expand_dims(groups, _inner_axes(box)), split)
    return arrays.reshape(spread, like.shape, tuple(jax.typeof(like).sharding.spec))


def check_boxes(mask: Any, box: Shape, name: str, path: str) -> None:
    """Raise a ValueError when a box is neither wholly kept nor wholly pruned."""
    split = arrays.split_axes(check_mask(mask, path), box)
    between = split.any(_inner_axes(box)) & ~split.all(_inner_axes(box))
    if between.any():
        raise ValueError(
            f"{subject(path)}{name} needs each group kept or pruned as one, got {between.sum()} of "
            f"{between.size} groups in between; build the mask with {name}.mask."
        )


def matrix_box(
    shape: Shape, rows: int, cols: int, output_axis: int, name: str, path: str = ""
) -> Shape:
    """The extent on each axis of a block of `rows` outputs x `cols` consecutive inputs.

    Args:
      shape, rows, cols: of the leaf and of the block.
      output_axis: the axis of the outputs; inputs are the others in order, flattened.
      name, path: of the pattern and the leaf, for the error.

    Raises:
      ValueError: the leaf lacks the axis, or blocks do not tile it.
    """
    if not -len(shape) <= output_axis < len(shape):
        raise ValueError(
            f"{subject(path)}{name} needs axis {output_axis}, got shape {shape}; "
            "choose an axis of the leaf."
        )
    output = output_axis % len(shape)
    box, left = [1] * len(shape), cols
    box[output] = rows
    for axis in reversed([axis for axis in range(len(shape)) if axis != output]):
        box[axis] = left if shape[axis] % left == 0 else shape[axis]
        left = left // box[axis] if left % box[axis] == 0 else 0
        if left <= 1:
            break
    if left != 1 or shape[output] % rows:
        raise ValueError(
            f"{subject(path)}{name} needs output channels (axis {output_axis}) in multiples of "
            f"{rows} and inputs in multiples of {cols}, got shape {shape}; choose another block "
            "or leave the layer dense."
        )
    return tuple(box)


def any_of_groups(members: Bool[Array, "..."] | None, box: Shape) -> Bool[Array, "..."] | None:
    """Which boxes have a member; None stays None."""
    return None if members is None else arrays.split_axes(members, box).any(_inner_axes(box))


def _inner_axes(box: Shape) -> tuple[int, ...]:
    return tuple(range(1, 2 * len(box), 2))
