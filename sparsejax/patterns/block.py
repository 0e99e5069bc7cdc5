"""Blocks of output channels x inputs are pruned as one; packed as BSR over the output channels."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparsejax import arrays
from sparsejax.patterns.boxes import Boxes, matrix_box
from sparsejax.patterns.pattern import (
    AnyArray,
    Neighbours,
    Orientation,
    Shape,
    Unsaid,
    kept_weights,
)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "indices", "row_starts"],
    meta_fields=["block", "matrix_shape", "leaf_shape", "output_axis"],
)
@dataclass(frozen=True)
class BSR:
    """Blocks, one row of blocks after the other; `indices` are block columns and ascend."""

    values: Float[AnyArray, "num_blocks block_rows block_cols"]
    indices: Int[AnyArray, "num_blocks"]
    row_starts: Int[AnyArray, "block_rows_plus_1"]
    block: tuple[int, int]
    matrix_shape: tuple[int, int]
    leaf_shape: Shape
    output_axis: int = field(default=-1)

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros where nothing is stored."""
        return self._dense()

    @partial(jax.jit, inline=True)  # one program, also for who calls it without jit
    def _dense(self) -> Any:
        blocks = jnp.zeros((*self._grid(), *self.block), self.values.dtype)
        blocks = blocks.at[self._rows(), self.indices].set(self.values)
        matrix = blocks.transpose(0, 2, 1, 3).reshape(self.matrix_shape)
        return arrays.from_matrix(matrix, self.leaf_shape, self.output_axis)

    def gather(self, weights: Float[AnyArray, "..."]) -> "BSR":
        """The same structure with the values of a dense leaf."""
        return replace(self, values=self._values(jnp.asarray(weights)))

    @partial(jax.jit, inline=True)
    def _values(self, weights: Any) -> Any:
        matrix = arrays.as_matrix(weights, self.output_axis)
        return split_blocks(matrix, self.block)[self._rows(), self.indices]

    def _grid(self) -> tuple[int, int]:
        return self.matrix_shape[0] // self.block[0], self.matrix_shape[1] // self.block[1]

    def _rows(self) -> Int[Array, "num_blocks"]:
        counts = jnp.diff(jnp.asarray(self.row_starts))
        rows = jnp.arange(self._grid()[0])
        return jnp.repeat(rows, counts, total_repeat_length=self.indices.shape[0])


@dataclass(frozen=True)
class Block(Boxes):
    """Blocks of `rows` output channels x `cols` consecutive inputs are pruned as one.

    Inputs are the other axes in order, flattened: (kh, kw, in) of an HWIO kernel.
    `output_axis` is -1 for flax kernels and 0 for Equinox weights.
    """

    rows: int
    cols: int = 1
    output_axis: int = Unsaid(-1)

    def __post_init__(self) -> None:
        if min(self.rows, self.cols) < 1:
            raise ValueError(f"{self._name()} needs rows and cols of at least 1; make them so.")

    def pack(self, weights: Any, mask: Any = None) -> BSR:
        """The blocks with a kept weight as BSR; pruned weights inside a stored block are 0."""
        weights, kept = kept_weights(weights, mask)
        self._box(weights.shape)
        block = (self.rows, self.cols)
        pruned = np.where(kept, weights, np.zeros((), weights.dtype))
        matrix = arrays.as_matrix(pruned, self.output_axis)
        stored = split_blocks(arrays.as_matrix(kept, self.output_axis), block).any((2, 3))
        rows, indices = np.nonzero(stored)
        return BSR(
            values=split_blocks(matrix, block)[rows, indices],
            indices=indices.astype(np.int32),
            row_starts=np.searchsorted(rows, np.arange(len(stored) + 1)).astype(np.int32),
            block=block,
            matrix_shape=matrix.shape,
            leaf_shape=weights.shape,
            output_axis=self.output_axis,
        )

    def orientation(self) -> Orientation:
        """Rows along the outputs, columns along the inputs."""
        return Orientation("output_axis", self.output_axis, contracted=self.cols > 1)

    def neighbours(self) -> Neighbours:
        """The rows of a block."""
        return Neighbours(self.rows, self.output_axis, replace(self, rows=1))

    def _name(self) -> str:
        return f"Block({self.rows}, {self.cols})"

    def _box(self, shape: Shape, path: str = "") -> Shape:
        """The block's extent on each axis of the leaf."""
        return matrix_box(shape, self.rows, self.cols, self.output_axis, self._name(), path)


def split_blocks(matrix: Any, block: tuple[int, int]) -> Any:
    """The blocks of a matrix: (block rows, block columns, *block)."""
    grid = (matrix.shape[0] // block[0], matrix.shape[1] // block[1])
    return matrix.reshape(grid[0], block[0], grid[1], block[1]).transpose(0, 2, 1, 3)
