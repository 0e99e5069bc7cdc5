"""The kinds of node that a graph may have; weights are float32 arrays, all else is small."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax.compiler.activation import IDENTITY, Activation

Pairs = tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)


def _with(activation: Activation) -> str:
    return f" + {activation}" if activation else ""


def _padding(padding: Pairs) -> str:
    return f" padding {padding}" if any(map(any, padding)) else ""


@dataclass(frozen=True, eq=False)
class Conv:
    """activation(conv(x) + bias + residual) in two dimensions; inputs [x] or [x, residual].

    Attributes:
        weights: HWIO, (kernel height, kernel width, inputs / groups, outputs).
        bias: (outputs,).
        path: of the weights in the user's params.
        strides, padding, dilation, groups: of the convolution.
        channels_last: NHWC rather than NCHW.
        activation: of the sum.
    """

    weights: np.ndarray
    bias: np.ndarray
    path: str = ""
    strides: tuple[int, int] = (1, 1)
    padding: Pairs = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    channels_last: bool = True
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Size, channels and options."""
        height, width, inputs, outputs = self.weights.shape
        text = f"Conv {height}x{width} {inputs * self.groups}->{outputs}"
        text += f" strides {self.strides}" if self.strides != (1, 1) else ""
        text += f" dilation {self.dilation}" if self.dilation != (1, 1) else ""
        text += f" groups {self.groups}" if self.groups != 1 else ""
        return f"{text}{_padding(self.padding)}{_with(self.activation)} {self.path}".rstrip()


@dataclass(frozen=True, eq=False)
class Linear:
    """activation(x @ weights + bias + residual); inputs [x (..., in)] or [x, residual].

    Attributes:
        weights: (inputs, outputs).
        bias: (outputs,).
        path: of the weights in the user's params.
        activation: of the sum.
    """

    weights: np.ndarray
    bias: np.ndarray
    path: str = ""
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Size and activation."""
        inputs, outputs = self.weights.shape
        return f"Linear {inputs}->{outputs}{_with(self.activation)} {self.path}".rstrip()


@dataclass(frozen=True, eq=False)
class Affine:
    """activation(scale * x + shift), scale and shift one number a channel.

    Attributes:
        scale, shift: (channels,), float64; one number for all while a graph is rewritten.
        axis: of the channels.
        activation: of the sum.
    """

    scale: np.ndarray
    shift: np.ndarray
    axis: int = -1
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Axis and activation."""
        return f"Affine axis {self.axis}{_with(self.activation)}"


@dataclass(frozen=True)
class Elementwise:
    """activation(a kind b).

    Attributes:
        kind: "add", "sub", "mul" or "max" of [a, b], or "identity" of [a]. b has a's shape, or is
            one number per image and channel: (N, 1, 1, C) or (N, C, 1, 1).
        activation: of the result.
    """

    kind: str
    activation: Activation = IDENTITY

    def __str__(self) -> str:
        """Kind and activation."""
        if self.kind == "identity":
            return f"Elementwise {self.activation}"
        return f"Elementwise {self.kind}{_with(self.activation)}"


@dataclass(frozen=True)
class Pool:
    """The maximum or average of windows over height and width.

    Attributes:
        kind: "max" or "average".
        window, strides, padding: of the window; a maximum takes taps inside the image alone.
        channels_last: NHWC rather than NCHW.
        counts: does an average divide by padded taps, too?
    """

    kind: str
    window: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: Pairs = ((0, 0), (0, 0))
    channels_last: bool = True
    counts: bool = True

    def __str__(self) -> str:
        """Kind, window and options."""
        text = f"Pool {self.kind} {self.window[0]}x{self.window[1]} strides {self.strides}"
        return text + _padding(self.padding) + ("" if self.counts else " inside")


@dataclass(frozen=True)
class Mean:
    """The mean over height and width, (N, C), or with 1x1 pixels left if `keepdims`."""

    channels_last: bool = True
    keepdims: bool = False

    def __str__(self) -> str:
        """Mean."""
        return "Mean" + (" keepdims" if self.keepdims else "")


@dataclass(frozen=True)
class Concat:
    """The inputs one after the other along their channels."""

    axis: int

    def __str__(self) -> str:
        """Axis."""
        return f"Concat axis {self.axis}"


@dataclass(frozen=True, eq=False)
class Channels:
    """Output channel i is input channel index[i]: a slice, a shuffle, a reversal."""

    index: np.ndarray
    axis: int

    def __str__(self) -> str:
        """Range, or size."""
        first, size = int(self.index[0]) if self.index.size else 0, self.index.size
        plain = np.array_equal(self.index, np.arange(first, first + size))
        return f"Channels {first}:{first + size}" if plain else f"Channels shuffled, {size}"


@dataclass(frozen=True)
class Pad:
    """Zeros around height and width."""

    padding: Pairs
    channels_last: bool = True

    def __str__(self) -> str:
        """Padding."""
        return f"Pad{_padding(self.padding)}"


@dataclass(frozen=True)
class Reshape:
    """The same elements in the same order."""

    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Shape."""
        return f"Reshape {self.shape}"


@dataclass(frozen=True)
class Transpose:
    """Axes in another order; never part of a region."""

    permutation: tuple[int, ...]

    def __str__(self) -> str:
        """Permutation."""
        return f"Transpose {self.permutation}"


@dataclass(frozen=True, eq=False)
class Primitive:
    """Everything else: an equation of the jaxpr, which stays in XLA."""

    equation: Any

    @property
    def name(self) -> str:
        """The primitive's name in JAX."""
        return self.equation.primitive.name

    def __str__(self) -> str:
        """The primitive's name."""
        return self.name


LAYERS = (Conv, Linear)
Op = (
    Conv
    | Linear
    | Affine
    | Elementwise
    | Pool
    | Mean
    | Concat
    | Channels
    | Pad
    | Reshape
    | Transpose
    | Primitive
)
