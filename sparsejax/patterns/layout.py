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
