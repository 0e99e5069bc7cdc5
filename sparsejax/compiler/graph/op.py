"""What every node's op answers, and the types of its answers."""

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import jax

if TYPE_CHECKING:
    from sparsejax.compiler.graph.graph import Node


class MappingType(Enum):
    """How elements of the inputs lead to elements of the output.

    Reference: Niu et al., "DNNFusion", PLDI 2021, arXiv:2108.13342, table 2.
    """

    ONE_TO_ONE = "one-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"
    REORGANIZE = "reorganize"
    SHUFFLE = "shuffle"
    OPAQUE = "opaque"


class Op(Protocol):
    """What a node does."""

    @property
    def name(self) -> str:
        """The kind, or the name of a primitive."""
        ...

    @property
    def effects(self) -> bool:
        """Must it run even if nobody reads its outputs?"""
        ...

    def evaluate(self, *inputs: Any, **_: Any) -> list[jax.Array]:
        """The outputs in plain JAX, for any batch size and also in float64."""
        ...

    def mapping(self, node: "Node") -> MappingType:
        """The mapping type of a node with this op; a broadcast of what is known counts as none."""
        ...
