"""The interface of every pattern."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

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

    The leaf is `num_groups` groups of equal size, each pruned or kept as one: plans and allocators
    count groups. `group_scores` is linear, in any order of the groups, and positive where a mask
    has a kept weight. A pattern inherits the answers to the questions at the end, and gives those
    that differ: nothing asks what class it is.
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
        """Patterns of disjoint groups: a mask of this one is the product of masks of these.

        Used where a mask is read from zeros, and where groups are penalised.
        """
        return (self,)

    def quota(self, shape: Shape) -> Quota | None:
        """How many single weights may stay, and among which.

        None if weights go in groups, or if how many stay depends on the sparsity.
        """
        return None

    def neighbours(self) -> Neighbours | None:
        """Which outputs share groups; None if their order does not matter."""
        return None

    def layouts(self) -> tuple[Layout, ...]:
        """How `compile` may store the weights: blocks where outputs share their zeros."""
        shared = self.neighbours()
        return layouts_of(1 if shared is None else shared.size)


def check_mask(mask: Any, path: str) -> np.ndarray:
    """The mask as NumPy, or a TypeError."""
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"{subject(path)}a mask must be bool, got {mask.dtype}.")
    return mask


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
