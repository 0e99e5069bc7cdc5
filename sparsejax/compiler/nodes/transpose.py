"""Axes in another order; never part of a region."""

from dataclasses import dataclass

import jax

from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType


@dataclass(frozen=True)
class Transpose:
    """Axes in another order."""

    permutation: tuple[int, ...]

    @property
    def name(self) -> str:
        """The kind."""
        return "Transpose"

    @property
    def effects(self) -> bool:
        return False

    def __str__(self) -> str:
        """Permutation."""
        return f"Transpose {self.permutation}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        return [x.transpose(self.permutation)]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.SHUFFLE
