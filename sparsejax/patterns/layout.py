"""How a sparse matrix can be stored for the kernels of `compile`."""

from enum import IntEnum
from typing import NamedTuple


class Storage(IntEnum):
    """The arrangement of the weights, as xla_ops/kernels/product.h numbers it."""

    ROWS = 0  # the nonzeros of `block` rows interleaved
    BLOCKS = 1  # `block` x 1
    MASKS = 2  # groups of 4 rows, columns sorted by which rows use them


ROWS, BLOCKS, MASKS = Storage


class Layout(NamedTuple):
    """How a product's weights are stored; what is 0 the engine chooses.

    Attributes:
        storage: ROWS, BLOCKS or MASKS.
        block, tile, chunk_cols, num_parts: see xla_ops/engine/pack_product.h.
    """

    storage: Storage
    block: int
    tile: int = 0
    chunk_cols: int = 0
    num_parts: int = 0


BY_WEIGHT = (*(Layout(ROWS, rows) for rows in (1, 2, 4, 8)), Layout(MASKS, 4))
BY_BLOCK = tuple(Layout(BLOCKS, rows) for rows in (2, 4, 8))
LAYOUTS = (*BY_WEIGHT, *BY_BLOCK)


def layouts_of(num_outputs: int) -> tuple[Layout, ...]:
    """Those for zeros that so many neighbouring outputs share: blocks that tile them, if any do."""
    blocks = tuple(layout for layout in BY_BLOCK if num_outputs % layout.block == 0)
    return blocks or BY_WEIGHT
