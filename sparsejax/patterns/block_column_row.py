"""Whole columns and rows of each block are pruned; packed with lists of columns that rows share."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sparsejax import arrays, top_k
from sparsejax.patterns.block import Block, split_blocks
from sparsejax.patterns.boxes import (
    any_of_groups,
    expand_groups,
    mask_groups,
    matrix_box,
    sum_groups,
)
from sparsejax.patterns.layout import BY_WEIGHT, Layout, layouts_of
from sparsejax.patterns.n_of_m import NM
from sparsejax.patterns.pattern import (
    AnyArray,
    Neighbours,
    Orientation,
    Pattern,
    Shape,
    Unsaid,
    check_mask,
    kept_weights,
    subject,
)

Run = tuple[np.ndarray, np.ndarray]  # rows, columns


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "rows", "run_starts", "columns", "column_starts", "value_starts"],
    meta_fields=["matrix_shape", "leaf_shape", "output_axis"],
)
@dataclass(frozen=True)
class BCRC:
    """Block-based column-row compression: runs of rows that share one list of columns.

    Run r has the rows `rows[run_starts[r]:run_starts[r + 1]]` and the columns
    `columns[column_starts[r]:column_starts[r + 1]]`, both ascending, and is dense there: its values
    begin at `value_starts[r]`, column by column, so that one input feeds all rows of the run. A row
    may be in several runs.

    Differs: the paper's arrays, as far as its abstract names them, are called reorder (`rows`),
    occurrence, compact column, column stride and row offset; it has each row in one run.

    Reference: Niu et al., "GRIM: A General, Real-Time Deep Learning Inference Framework for Mobile
    Devices based on Fine-Grained Structured Weight Sparsity", TPAMI 2021, arXiv 2108.11033.
    """

    values: Float[AnyArray, "num_values"]
    rows: Int[AnyArray, "num_rows"]
    run_starts: Int[AnyArray, "runs_plus_1"]
    columns: Int[AnyArray, "num_columns"]
    column_starts: Int[AnyArray, "runs_plus_1"]
    value_starts: Int[AnyArray, "runs_plus_1"]
    matrix_shape: tuple[int, int]
    leaf_shape: Shape
    output_axis: int = field(default=-1)

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros where nothing is stored."""
        return self._dense()

    @partial(jax.jit, inline=True)  # one program, also for who calls it without jit
    def _dense(self) -> Any:
        matrix = jnp.zeros(self.matrix_shape, self.values.dtype)
        return arrays.from_matrix(
            matrix.at[self.positions()].add(self.values), self.leaf_shape, self.output_axis
        )

    def gather(self, weights: Float[AnyArray, "..."]) -> "BCRC":
        """The same structure with the values of a dense leaf."""
        return replace(self, values=self._values(jnp.asarray(weights)))

    @partial(jax.jit, inline=True)
    def _values(self, weights: Any) -> Any:
        return arrays.as_matrix(weights, self.output_axis)[self.positions()]

    def positions(self) -> tuple[Int[Array, "num_values"], Int[Array, "num_values"]]:
        """The row and the column of each value."""
        starts = (self.value_starts, self.run_starts, self.column_starts)
        value_starts, run_starts, column_starts = map(jnp.asarray, starts)
        index = jnp.arange(self.values.shape[0], dtype=value_starts.dtype)
        run = jnp.searchsorted(value_starts, index, side="right") - 1
        num_rows = jnp.maximum(run_starts[run + 1] - run_starts[run], 1)
        column, row = jnp.divmod(index - value_starts[run], num_rows)
        rows, columns = jnp.asarray(self.rows), jnp.asarray(self.columns)
        return rows[run_starts[run] + row], columns[column_starts[run] + column]


@dataclass(frozen=True)
class BlockColumnRow(Pattern):
    """In each block of `rows` output channels x `cols` inputs, whole columns and rows are pruned.

    The columns of all blocks compete by the sum of their scores. With `kept_rows`, a block keeps
    only so many of its rows, the best on its kept columns: s = 1 - (1 - s_c) kept_rows / rows.
    Below that sparsity, on a ramp, single rows of blocks go first and columns later, so that the
    count of pruned weights is exact at every step, to one column of a block (to `cols` weights with
    `kept_rows`). None keeps all rows, the choice for convolutions; about the square root of the
    density suits the matrices of recurrent networks.

    Methods that divide a budget among leaves by one threshold rank rows of blocks with `kept_rows`,
    and may miss the total by some of them. Inputs are the other axes in order, flattened: (kh, kw,
    in) of an HWIO kernel. `output_axis` is -1 for flax kernels and 0 for Equinox weights.

    Differs: the order of the two steps is ours, the sources leave it open; each block keeps the
    same number of rows, which balances the load and makes the count exact.

    Reference: Niu et al., "GRIM", TPAMI 2021, arXiv 2108.11033, abstract: block-based column-row
    pruning.
    """

    rows: int = 4
    cols: int = 16
    kept_rows: int | None = None
    output_axis: int = Unsaid(-1)

    def __post_init__(self) -> None:
        kept = self._kept_rows
        if min(self.rows, self.cols) < 1 or not 1 <= kept <= self.rows:
            raise ValueError(
                f"{self._name()} needs rows and cols of at least 1 and kept_rows of 1 to rows; "
                "make them so."
            )
        if kept < self.rows and self.cols % kept:
            raise ValueError(f"{self._name()} needs cols in multiples of kept_rows; make them so.")

    def mask(
        self,
        scores: Float[Array, "..."],
        sparsity: float | Float[Array, ""],
        *,
        keep: Bool[Array, "..."] | None = None,
        allowed: Bool[Array, "..."] | None = None,
    ) -> Bool[Array, "..."]:
        """The mask that keeps the columns of blocks with the highest sums, and rows within them."""
        column_box, _ = self._boxes(scores.shape)
        num_groups = self.num_groups(scores.shape)
        num_kept = num_groups - top_k.count_pruned(sparsity, num_groups)
        if self._kept_rows == self.rows:
            return mask_groups(scores, num_kept, keep, allowed, column_box)
        return self._best(scores, num_kept, keep, allowed)

    @partial(jax.jit, static_argnums=0)  # one program, also for who calls it without jit
    def _best(self, scores: Any, num_kept: Any, keep: Any, allowed: Any) -> Bool[Array, "..."]:
        column_box, row_box = self._boxes(scores.shape)
        column_scores: Any = sum_groups(scores, column_box)
        wanted = num_kept * (self.cols // self._kept_rows)
        column_groups = top_k.top_k_mask(
            column_scores,
            jnp.minimum(wanted, column_scores.size),
            keep=any_of_groups(keep, column_box),
            allowed=any_of_groups(allowed, column_box),
        )
        columns = expand_groups(column_groups, column_box, scores)
        best_rows = NM(self._kept_rows, self.rows, self.output_axis % scores.ndim)
        row_groups = best_rows.keep_best(
            sum_groups(jnp.where(columns, scores, 0), row_box),
            num_kept,
            any_of_groups(keep, row_box),
            any_of_groups(allowed, row_box),
        )
        return columns & expand_groups(row_groups, row_box, scores)

    def group_scores(self, scores: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        """The sum of each column of a block, or of each row of a block with `kept_rows`."""
        column_box, row_box = self._boxes(scores.shape)
        return sum_groups(scores, column_box if self._kept_rows == self.rows else row_box)

    def num_groups(self, shape: Shape) -> int:
        """The number of columns of all blocks, or of their rows with `kept_rows`."""
        return int(np.prod(shape)) // (self.rows if self._kept_rows == self.rows else self.cols)

    def max_sparsity(self, shape: Shape) -> float:
        """1.0: every column can go."""
        return 1.0

    def validate(self, shape: Shape, path: str = "") -> None:
        """Raise a ValueError when blocks do not tile the leaf."""
        self._boxes(shape, path)

    def check(self, mask: Bool[AnyArray, "..."], path: str = "") -> None:
        """Raise a ValueError when a block does not keep the same columns in all its kept rows."""
        kept = check_mask(mask, path)
        self.validate(kept.shape, path)
        blocks = split_blocks(arrays.as_matrix(kept, self.output_axis), (self.rows, self.cols))
        product = blocks.any(2, keepdims=True) & blocks.any(3, keepdims=True)
        wrong = (product != blocks).any((2, 3))
        if wrong.any():
            raise ValueError(
                f"{subject(path)}{self._name()} needs whole rows and columns of a block kept, got "
                f"{wrong.sum()} of {wrong.size} blocks otherwise; build the mask with "
                f"{self._name()}.mask."
            )

    def pack(self, weights: Any, mask: Any = None) -> BCRC:
        """The kept weights as BCRC, by whole rows or by the rows of blocks, whichever is smaller.

        Rows are grouped by equal columns wherever they are in the matrix.
        """
        weights, kept = kept_weights(weights, mask)
        self.validate(weights.shape)
        kept = arrays.as_matrix(kept, self.output_axis)
        candidates = [list(_runs(kept, width)) for width in (kept.shape[1], self.cols)]
        runs = min(candidates, key=_num_indices)
        runs.sort(key=lambda run: (run[0][0] // self.rows, run[1][0]))
        rows, columns = ([run[i] for run in runs] for i in (0, 1))
        matrix = arrays.as_matrix(weights, self.output_axis)
        values = [matrix[np.ix_(*run)].T.ravel() for run in runs]
        return BCRC(
            *(_concatenated(values, weights.dtype), _concatenated(rows, np.int32), _starts(rows)),
            *(_concatenated(columns, np.int32), _starts(columns), _starts(values)),
            matrix_shape=matrix.shape,
            leaf_shape=weights.shape,
            output_axis=self.output_axis,
        )

    def orientation(self) -> Orientation:
        """Rows along the outputs, columns along the inputs."""
        return Orientation("output_axis", self.output_axis, contracted=True)

    def factors(self) -> tuple[Pattern, ...]:
        """The columns of blocks and, with `kept_rows`, their rows."""
        columns = Block(self.rows, 1, self.output_axis)
        rows = Block(1, self.cols, self.output_axis)
        return (columns,) if self.kept_rows is None else (columns, rows)

    def neighbours(self) -> Neighbours:
        """The rows of a block, which share columns one by one."""
        return Neighbours(self.rows, self.output_axis, Block(1, 1, self.output_axis))

    def layouts(self) -> tuple[Layout, ...]:
        """Blocks, whose rows share their columns, and single weights, for rows may go as well."""
        return tuple(dict.fromkeys((*layouts_of(self.rows), *BY_WEIGHT)))

    @property
    def _kept_rows(self) -> int:
        return self.rows if self.kept_rows is None else self.kept_rows

    def _name(self) -> str:
        rows = "" if self.kept_rows is None else f", kept_rows={self.kept_rows}"
        return f"BlockColumnRow({self.rows}, {self.cols}{rows})"

    def _boxes(self, shape: Shape, path: str = "") -> tuple[Shape, Shape]:
        """The extents of one column of a block and of one row."""
        box = matrix_box(shape, self.rows, self.cols, self.output_axis, self._name(), path)
        output = self.output_axis % len(shape)
        column = tuple(n if axis == output else 1 for axis, n in enumerate(box))
        row = tuple(1 if axis == output else n for axis, n in enumerate(box))
        return column, row


def _runs(kept: Bool[np.ndarray, "rows cols"], width: int) -> Iterator[Run]:
    """Rows with equal columns, in each band of `width` columns."""
    for first in range(0, kept.shape[1], max(width, 1)):
        band = kept[:, first : first + width]
        lists, which = np.unique(band, axis=0, return_inverse=True)
        for index in np.flatnonzero(lists.any(1)):
            yield np.flatnonzero(which.ravel() == index), first + np.flatnonzero(lists[index])


def _num_indices(runs: list[Run]) -> int:
    return sum(len(rows) + len(columns) + 3 for rows, columns in runs)


def _concatenated(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


def _starts(parts: list[np.ndarray]) -> np.ndarray:
    return np.cumsum([0, *map(len, parts)]).astype(np.int32)
