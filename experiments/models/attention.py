"""Where subspace attention goes in a compact network: after a block, or in its place."""

from collections.abc import Iterable
from typing import NamedTuple


class Attention(NamedTuple):
    """Subspace attention of `groups` after the block of this index, or in its place."""

    block: int
    groups: int = 4
    replaces: bool = False


def attention_at(
    attention: Iterable[Attention], block: int, *, keeps_shape: bool
) -> Attention | None:
    """The attention at a block, if it has any.

    Raises:
        ValueError: it is to stand for a block whose output has another shape than its input.
    """
    found = next((own for own in attention if own.block == block), None)
    if found and found.replaces and not keeps_shape:
        raise ValueError(
            f"Attention(replaces=True) needs a block of stride 1 that keeps its channels, block "
            f"{block} does not; choose another block, or replaces=False."
        )
    return found
