"""What the kinds of node that the engine can run have in common."""

import abc
from dataclasses import replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.edit import Rule
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import EITHER, LAST, TO_FIRST, TO_LAST, Pairs, channel_axis
from sparsejax.compiler.graph.op import MappingType

NEITHER: frozenset[int] = frozenset()


class Rules(NamedTuple):
    """What a kind of node adds to the phases of `rewrite`, in this order.

    Attributes:
        named: make nodes of the kind of equations.
        joined: let nodes of the kind meet each other and find their last form.
        fused: draw nodes of the kind into those around them.
        sampled: come before all others, which would take apart what these tell by its values; from
            the last node to the first.
        first: come before these, which follow heads through what they make; in the same order.
    """

    named: tuple[Rule, ...] = ()
    joined: tuple[Rule, ...] = ()
    fused: tuple[Rule, ...] = ()
    sampled: tuple[Rule, ...] = ()
    first: tuple[Rule, ...] = ()


class RegionOp(abc.ABC):
    """A kind of node that a region may hold: a frozen dataclass with weights and numbers.

    It inherits the answers of the simplest kinds, and gives those that differ.
    """

    @property
    def name(self) -> str:
        """The kind."""
        return type(self).__name__

    @property
    def effects(self) -> bool:
        """Must it run even if nobody reads its outputs?"""
        return False

    @property
    def rows_meet(self) -> bool:
        """Does it need all rows along the last axis but one, of arrays that are no images?"""
        return False

    @abc.abstractmethod
    def evaluate(self, *inputs: Any, **_: Any) -> list[jax.Array]:
        """The outputs in plain JAX, for any batch size and also in float64."""

    def mapping(self, node: Node) -> MappingType:
        """How DNNFusion classes a node with this op."""
        return MappingType.ONE_TO_ONE

    @abc.abstractmethod
    def channel_axes(self, node: Node) -> frozenset[int]:
        """The axes that may be the channels of what the node reads and writes.

        Of images 1 or 3, of rows the last; none where the engine cannot run it.
        """

    def settled(self, axis: int, shape: tuple[int, ...]) -> Any:
        """The same op once its channels' axis and the shape of its output are known."""
        return self

    @abc.abstractmethod
    def before_change(self, to_last: bool) -> Any:
        """The op that may run before a change of its inputs' axis order, which then follows it.

        None if there is none. `to_last`: from NCHW to NHWC?
        """

    @abc.abstractmethod
    def lower(self, node: Node, to: Builder) -> None:
        """Write the node's steps."""


class ImageOp(RegionOp):
    """An op over height and width, which says with `channels_last` what these are."""

    channels_last: bool

    @abc.abstractmethod
    def in_order(self, channels_last: bool) -> Self | None:
        """The same op in this order of axes; None where it works on what are channels there."""

    @property
    def axis(self) -> int:
        """The axis of the channels."""
        return channel_axis(self.channels_last)

    def channel_axes(self, node: Node) -> frozenset[int]:
        return frozenset(axis for axis in EITHER if self.in_order(axis == LAST))

    def settled(self, axis: int, shape: tuple[int, ...]) -> Any:
        return self.in_order(axis == LAST)

    def before_change(self, to_last: bool) -> Any:
        after: Any = self.in_order(to_last)
        return after and replace(after, channels_last=not to_last)


class ChannelsOp(RegionOp):
    """An op along the channels, whose axis it names."""

    axis: int

    def channel_axes(self, node: Node) -> frozenset[int]:
        return frozenset((self.axis,))

    def before_change(self, to_last: bool) -> Any:
        own: Any = self
        return replace(own, axis=axis_before(self.axis, to_last))


class RowsOp(RegionOp):
    """An op that knows rows alone, and no images."""

    def channel_axes(self, node: Node) -> frozenset[int]:
        return last_axis(node)

    def before_change(self, to_last: bool) -> None:
        """None: there are no images."""


def axis_before(axis: int, to_last: bool) -> int:
    """The axis before a change of order."""
    return (TO_LAST if to_last else TO_FIRST)[axis]


def last_axis(node: Node) -> frozenset[int]:
    """The channels' axis of rows."""
    return frozenset((max(len(value.shape) for value in (*node.inputs, *node.outputs)) - 1,))


def numbers(array: np.ndarray, like: jax.Array) -> jax.Array:
    """Weights in the precision of what they meet."""
    return jnp.asarray(np.asarray(array, like.dtype))


def along(array: np.ndarray, axis: int, like: jax.Array) -> jax.Array:
    """One number a channel, in the shape that meets an array's."""
    shape = [1] * like.ndim
    shape[axis] = -1
    return numbers(array, like).reshape(shape)


def with_activation(activation: Activation) -> str:
    """What an op's name says of its activation."""
    return f" + {activation}" if activation else ""


def with_padding(padding: Pairs) -> str:
    """What an op's name says of its padding."""
    return f" padding {padding}" if any(map(any, padding)) else ""
