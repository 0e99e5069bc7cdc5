"""How a sparse matrix can be stored for the kernels of `compile`."""

from enum import Enum, auto
from typing import NamedTuple


class Storage(Enum):
    """The arrangement of the weights; xla_ops/kernels/codes.def has these names."""

    ROWS = auto()  # the nonzeros of `block` rows interleaved
    BLOCKS = auto()  # `block` x 1
    MASKS = auto()  # groups of 4 rows, columns sorted by which rows use them
    COLUMNS = auto()  # all weights, column by column: those that meet zeros of x are skipped


ROWS, BLOCKS, MASKS, COLUMNS = Storage


class Layout(NamedTuple):
    """How a product's weights are stored; what is 0 the engine chooses.

    Attributes:
        storage: ROWS, BLOCKS, MASKS or COLUMNS.
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
