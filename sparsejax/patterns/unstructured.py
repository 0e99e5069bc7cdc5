"""Any position may be zero; packed as CSR over the output channels."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparsejax import arrays
from sparsejax.patterns.boxes import Boxes
from sparsejax.patterns.pattern import AnyArray, Quota, Shape, kept_weights, subject


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "indices", "row_starts"],
    meta_fields=["matrix_shape", "leaf_shape", "output_axis"],
)
@dataclass(frozen=True)
class CSR:
    """Nonzeros row by row; a row is an output channel, columns ascend within it."""

    values: Float[AnyArray, "num_nonzeros"]
    indices: Int[AnyArray, "num_nonzeros"]
    row_starts: Int[AnyArray, "rows_plus_1"]
    matrix_shape: tuple[int, int]
    leaf_shape: Shape
    output_axis: int = field(default=-1)

    def todense(self) -> Float[Array, "..."]:
        """The leaf, with zeros where nothing is stored."""
        return self._dense()

    @partial(jax.jit, inline=True)  # one program, also for who calls it without jit
    def _dense(self) -> Any:
        matrix = jnp.zeros(self.matrix_shape, self.values.dtype)
        matrix = matrix.at[self._rows(), self.indices].set(self.values)
        return arrays.from_matrix(matrix, self.leaf_shape, self.output_axis)

    def gather(self, weights: Float[AnyArray, "..."]) -> "CSR":
        """The same structure with the values of a dense leaf."""
        return replace(self, values=self._values(jnp.asarray(weights)))

    @partial(jax.jit, inline=True)
    def _values(self, weights: Any) -> Any:
        return arrays.as_matrix(weights, self.output_axis)[self._rows(), self.indices]

    def _rows(self) -> Int[Array, "num_nonzeros"]:
        starts = jnp.asarray(self.row_starts)
        num_nonzeros = self.indices.shape[0]
        rows = jnp.arange(self.matrix_shape[0])
        return jnp.repeat(rows, jnp.diff(starts), total_repeat_length=num_nonzeros)


@dataclass(frozen=True)
class Unstructured(Boxes):
    """Single weights are pruned; `output_axis` is -1 for flax kernels and 0 for Equinox weights."""

    output_axis: int = -1

    def pack(self, weights: Any, mask: Any = None) -> CSR:
        """The kept weights as CSR, explicit zeros included where the mask keeps them."""
        weights, kept = kept_weights(weights, mask)
        self.validate(weights.shape)
        matrix = arrays.as_matrix(weights, self.output_axis)
        rows, indices = np.nonzero(arrays.as_matrix(kept, self.output_axis))
        return CSR(
            values=matrix[rows, indices],
            indices=indices.astype(np.int32),
            row_starts=np.searchsorted(rows, np.arange(len(matrix) + 1)).astype(np.int32),
            matrix_shape=matrix.shape,
            leaf_shape=weights.shape,
            output_axis=self.output_axis,
        )

    def quota(self, shape: Shape) -> Quota:
        """Any weights of the leaf may stay."""
        return Quota(math.prod(shape), shape)

    def _name(self) -> str:
        return "Unstructured()"

    def _box(self, shape: Shape, path: str = "") -> Shape:
        if not shape:
            raise ValueError(
                f"{subject(path)}{self._name()} needs an axis, got shape (); leave scalars dense."
            )
        return (1,) * len(shape)
