"""Where the axes of images are: their channels first (NCHW) or last (NHWC)."""

from collections.abc import Sequence
from typing import Any

Pairs = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)
FIRST, LAST = 1, 3
MIN_ROWS = 32  # fewer rows run faster together with those of other sequences
EITHER = frozenset((FIRST, LAST))
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def channel_axis(channels_last: bool) -> int:
    """The axis of the channels among four."""
    return LAST if channels_last else FIRST


def sides(channels_last: bool) -> tuple[int, int]:
    """The axes of height and width among four."""
    return (1, 2) if channels_last else (2, 3)


def one_a_channel(shape: tuple, axis: int) -> tuple[int, ...]:
    """The shape of one number for each image and channel."""
    return tuple(size if i in (0, axis) else 1 for i, size in enumerate(shape))


def one_a_pixel(shape: tuple, axis: int) -> tuple[int, ...]:
    """The shape of one number for each pixel of an image, or each row."""
    return tuple(1 if i == axis else size for i, size in enumerate(shape))


def spatial(pair: Sequence, rest: Any, channels_last: bool) -> tuple:
    """Something for height and width in their place among four axes, `rest` for the others."""
    return (rest, *pair, rest) if channels_last else (rest, rest, *pair)


def of_line(shape: tuple, channels_last: bool) -> tuple[int, ...]:
    """The shape of a line of pixels, (N, W, C) or (N, C, W), as an image of height 1."""
    axis = 1 if channels_last else 2
    return (*shape[:axis], 1, *shape[axis:])


def is_channel(axis: int, rank: int) -> bool:
    """May the axis be that of channels?"""
    return rank > 0 and (axis == rank - 1 or (rank == 4 and axis == 1))
