"""Whole kernels of several output channels are pruned as one; packed as BSR."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsejax.patterns.block import BSR, Block
from sparsejax.patterns.boxes import Boxes
from sparsejax.patterns.pattern import Neighbours, Orientation, Shape, Unsaid, subject


@dataclass(frozen=True)
class KernelGroup(Boxes):
    """The k x k kernels from one input channel to `outputs` output channels are pruned as one.

    All taps of a kernel go together, so that the input channel is not read at all for these
    outputs. The axes are those of an HWIO kernel, or 0 and 1 of an OIHW one. On 1x1 convolutions it
    is `Block(outputs, 1)`.

    Reference: Xu et al., "SparseByteNN: A Novel Mobile Inference Acceleration Framework Based on
    Fine-Grained Group Sparsity", 2023, arXiv 2310.19509, abstract: kernel sparsity. Differs: the
    sizes of the groups are ours, the sources leave them open.
    """

    outputs: int = 4
    output_axis: int = Unsaid(-1)
    input_axis: int = -2

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise ValueError(f"{self._name()} needs at least 1 output; make it so.")

    def pack(self, weights: Any, mask: Any = None) -> BSR:
        """The groups with a kept weight as BSR, in blocks of `outputs` rows x 1 tap."""
        self._box(np.shape(weights))
        return Block(self.outputs, 1, self.output_axis).pack(weights, mask)

    def orientation(self) -> Orientation:
        """Groups of outputs."""
        return Orientation("output_axis", self.output_axis)

    def neighbours(self) -> Neighbours:
        """The outputs of a group."""
        return Neighbours(self.outputs, self.output_axis, replace(self, outputs=1))

    def _name(self) -> str:
        return f"KernelGroup({self.outputs})"

    def _box(self, shape: Shape, path: str = "") -> Shape:
        axes = (self.output_axis, self.input_axis)
        present = all(-len(shape) <= axis < len(shape) for axis in axes)
        if not present or len({axis % len(shape) for axis in axes}) < 2:
            raise ValueError(
                f"{subject(path)}{self._name()} needs axes {axes} for outputs and inputs, got "
                f"shape {shape}; choose two axes of the leaf."
            )
        output, channel = (axis % len(shape) for axis in axes)
        if shape[output] % self.outputs:
            raise ValueError(
                f"{subject(path)}{self._name()} needs output channels (axis {self.output_axis}) in "
                f"multiples of {self.outputs}, got shape {shape}; choose another size or leave the "
                "layer dense."
            )
        box = list(shape)
        box[output], box[channel] = self.outputs, 1
        return tuple(box)
