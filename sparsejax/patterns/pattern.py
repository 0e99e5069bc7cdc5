"""The interface of every pattern, and the box-shaped groups that most of them are made of."""

import abc
import math
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sparsejax import arrays, top_k
from sparsejax.patterns.layout import Layout, layouts_of

Shape = tuple[int, ...]
AnyArray = Array | np.ndarray


class Unsaid(int):
    """An axis that the user has not given: a plan asks for it where it would be a guess."""


@runtime_checkable
class Packed(Protocol):
    """Nonzeros as a pytree of arrays."""

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros where nothing is stored."""
        ...

    def gather(self, weights: Float[AnyArray, "..."]) -> "Packed":
        """The same structure with the values of a dense leaf."""
        ...


class Quota(NamedTuple):
    """Of each box of this extent at most `kept` weights stay, each chosen by itself."""

    kept: int
    box: Shape

    @property
    def unlimited(self) -> bool:
        """May all of them stay?"""
        return self.kept == math.prod(self.box)


class Neighbours(NamedTuple):
    """So many consecutive outputs along `axis` share their groups, which `alone` gives to each."""

    size: int
    axis: int
    alone: "Pattern"


class Orientation(NamedTuple):
    """The axis that a pattern goes along, by the option that gives it, which may be left `Unsaid`.

    Attributes:
        option: its name.
        axis: its value.
        of_inputs: is it an axis of inputs?
        of_either: may it be one of inputs as well as of outputs?
        contracted: does it matter which of the other axes are inputs?
    """

    option: str
    axis: int
    of_inputs: bool = False
    of_either: bool = False
    contracted: bool = False


@runtime_checkable
class Pattern(Protocol):
    """Which positions of a leaf may be nonzero, as a frozen dataclass.

    A pattern inherits the answers to the questions at the end, and gives those that differ: nothing
    asks what class it is.
    """

    def mask(
        self,
        scores: Float[Array, "..."],
        sparsity: float | Float[Array, ""],
        *,
        keep: Bool[Array, "..."] | None = None,
        allowed: Bool[Array, "..."] | None = None,
    ) -> Bool[Array, "..."]:
        """The mask that prunes floor(sparsity * num_groups + 0.5) groups, lowest scores first.

        A group's score is the sum of its scores (pass scores >= 0). Groups with a `keep` position
        are pruned last, and groups not wholly `allowed` first. `sparsity` may be traced.
        """
        ...

    def group_scores(self, scores: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The score of each group, by which `mask` ranks them; NumPy stays NumPy."""
        ...

    def num_groups(self, shape: Shape) -> int:
        """How many groups are pruned or kept as one."""
        ...

    def max_sparsity(self, shape: Shape) -> float:
        """The highest sparsity that the pattern reaches on a leaf of this shape."""
        ...

    def validate(self, shape: Shape, path: str = "") -> None:
        """Raise a ValueError when a leaf of this shape cannot have the pattern."""
        ...

    def check(self, mask: Bool[AnyArray, "..."], path: str = "") -> None:
        """Raise a ValueError when the mask is not one of this pattern."""
        ...

    def pack(self, weights: Any, mask: Any = None) -> Packed:
        """The packed form of the kept weights (of all nonzeros without a mask), in NumPy."""
        ...

    def orientation(self) -> Orientation | None:
        """Which axis it goes along; None if any is as good."""
        return None

    def factors(self) -> "tuple[Pattern, ...]":
        """Patterns of disjoint groups: a mask of this one is the product of masks of these."""
        return (self,)

    def quota(self, shape: Shape) -> Quota | None:
        """How many single weights may stay, and among which; None if weights go in groups."""
        return None

    def neighbours(self) -> Neighbours | None:
        """Which outputs share groups; None if their order does not matter."""
        return None

    def layouts(self) -> tuple[Layout, ...]:
        """How `compile` may store the weights: blocks where outputs share their zeros."""
        shared = self.neighbours()
        return layouts_of(1 if shared is None else shared.size)


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


def check_mask(mask: Any, path: str) -> np.ndarray:
    """The mask as NumPy, or a TypeError."""
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"{subject(path)}a mask must be bool, got {mask.dtype}.")
    return mask


def check_boxes(mask: Any, box: Shape, name: str, path: str) -> None:
    """Raise a ValueError when a box is neither wholly kept nor wholly pruned."""
    split = arrays.split_axes(check_mask(mask, path), box)
    between = split.any(_inner_axes(box)) & ~split.all(_inner_axes(box))
    if between.any():
        raise ValueError(
            f"{subject(path)}{name} needs each group kept or pruned as one, got {between.sum()} of "
            f"{between.size} groups in between; build the mask with {name}.mask."
        )


def subject(path: str) -> str:
    """How an error about a leaf begins."""
    return f"{path}: " if path else ""


def kept_weights(weights: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights and mask as NumPy; without a mask, the nonzeros are kept."""
    if isinstance(weights, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        raise TypeError("pack needs concrete weights, got traced ones; call it outside jax.jit.")
    weights = np.asarray(weights)
    kept = weights != 0 if mask is None else check_mask(mask, "")
    if kept.shape != weights.shape:
        raise ValueError(f"pack needs a mask of shape {weights.shape}, got {kept.shape}.")
    return weights, kept


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
