"""Group convolution by the size of a group, as E2GC has it: layers, costs, and which size pays."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from flax import nnx
from jaxtyping import Array, Float


class GroupConv(nnx.Conv):
    """`nnx.Conv` whose groups have `group_size` input channels each, however many that makes.

    Networks with group convolutions usually fix the number of groups, so that the groups of deep
    layers are large. With one size for all layers, the multiply-adds and the data that each of them
    reuses stay in balance. A layer with fewer channels than that is one group.

    Args:
      in_features, out_features: channels, in multiples of the groups.
      kernel_size: of the window.
      group_size: input channels of a group: 1 is depthwise, `in_features` an ordinary convolution.
      rngs: as for every NNX module.
      options: of `nnx.Conv`.

    Raises:
      ValueError: the channels are no multiple of the group's, or the outputs of the groups.

    Example:
      >>> from flax import nnx
      >>> conv = sj.nn.GroupConv(32, 64, (3, 3), group_size=8, rngs=nnx.Rngs(0))
      >>> conv.kernel.shape, conv.feature_group_count
      ((3, 3, 8, 64), 4)

    Reference: Jha et al., "E2GC: Energy-efficient Group Convolution in Deep Neural Networks", VLSID
    2020, arXiv 2006.15100, abstract.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        group_size: int,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        groups = _num_groups(in_features, out_features, group_size)
        super().__init__(
            in_features, out_features, kernel_size, feature_group_count=groups, rngs=rngs, **options
        )


class GroupConvLinen(nn.Module):
    """`GroupConv` for linen: its parameters are those of `nn.Conv`.

    Args of the module:
        features, kernel_size, strides, padding, use_bias: as in `nn.Conv`.
        group_size: input channels of a group.
    """

    features: int
    kernel_size: int | Sequence[int]
    group_size: int
    strides: int | Sequence[int] = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch features"]:
        """The convolution of the inputs, channels last."""
        conv = nn.Conv(
            self.features,
            self.kernel_size,
            self.strides,
            padding=self.padding,
            use_bias=self.use_bias,
            feature_group_count=_num_groups(x.shape[-1], self.features, self.group_size),
        )
        nn.share_scope(self, conv)
        return conv(x)


class GroupConvCost(NamedTuple):
    """What a group convolution computes and moves for one image, in words of data.

    Attributes:
        multiply_adds: k^2 G outputs height width.
        weights: k^2 G outputs.
        activations: read and written once each.
    """

    multiply_adds: int
    weights: int
    activations: int

    @property
    def words(self) -> int:
        """All that is moved if nothing is moved twice."""
        return self.weights + self.activations

    @property
    def arithmetic_intensity(self) -> float:
        """Multiply-adds a word."""
        return self.multiply_adds / self.words


def group_conv_cost(
    inputs: int,
    outputs: int,
    height: int,
    width: int,
    *,
    group_size: int,
    kernel_size: int = 3,
    stride: int = 1,
) -> GroupConvCost:
    """The multiply-adds of a group convolution and the words that it moves, for one image.

    Args:
      inputs, outputs: channels.
      height, width: of the output; the input has `stride` times as many.
      group_size: input channels of a group; a layer with fewer channels is one group.
      kernel_size: of the square window.
      stride: of the window, in both directions.

    Example:
      >>> sj.nn.group_conv_cost(256, 256, 28, 28, group_size=16)
      GroupConvCost(multiply_adds=28901376, weights=36864, activations=401408)

    Differs: a reconstruction; the paper's own model could not be read.

    Reference: Jha et al., "E2GC", VLSID 2020, arXiv 2006.15100, abstract.
    """
    groups = _num_groups(inputs, outputs, group_size)
    weights = kernel_size**2 * (inputs // groups) * outputs
    pixels = height * width
    return GroupConvCost(weights * pixels, weights, pixels * (stride**2 * inputs + outputs))


def best_group_size(
    inputs: int,
    outputs: int,
    height: int,
    width: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    balance: float = 1.0,
    candidates: Iterable[int] | None = None,
) -> int:
    """The group size at which multiply-adds and the reuse of data are in balance.

    It minimises multiply_adds(G) / multiply_adds(inputs) + balance * words(G) / multiply_adds(G),
    the latter over its value at the smallest size: larger groups compute more, and reuse more. It
    is about the square root of balance * inputs.

    Args:
      inputs, outputs, height, width, kernel_size, stride: as in `group_conv_cost`.
      balance: how much a word weighs against multiply-adds.
      candidates: sizes to choose from; by default the powers of two that divide the channels.

    Raises:
      ValueError: there are no candidates.

    Example:
      >>> [sj.nn.best_group_size(m, m, h, h) for m, h in ((128, 56), (512, 14), (1024, 7))]
      [8, 16, 32]

    Differs: a reconstruction of the "optimum group size model"; the paper's own could not be read.

    Reference: Jha et al., "E2GC", VLSID 2020, arXiv 2006.15100, abstract.
    """

    def cost(group_size: int) -> GroupConvCost:
        return group_conv_cost(
            *(inputs, outputs, height, width),
            group_size=group_size,
            kernel_size=kernel_size,
            stride=stride,
        )

    powers = (1 << bit for bit in range(inputs.bit_length()))
    fitting = (g for g in powers if inputs % g == 0 and outputs % (inputs // g) == 0)
    sizes = list(fitting if candidates is None else candidates)
    if not sizes:
        raise ValueError(
            f"best_group_size needs a size that divides {inputs} channels into groups that divide "
            f"{outputs}, got none; pass candidates."
        )
    whole, single = cost(inputs), cost(min(sizes))

    def imbalance(group_size: int) -> float:
        own = cost(group_size)
        reuse = single.arithmetic_intensity / own.arithmetic_intensity
        return own.multiply_adds / whole.multiply_adds + balance * reuse

    return min(sizes, key=imbalance)


def _num_groups(inputs: int, outputs: int, group_size: int) -> int:
    """How many groups of this size there are, at least 1."""
    size = min(group_size, inputs)
    if size < 1 or inputs % size or outputs % (inputs // size):
        raise ValueError(
            f"A group convolution needs input channels in multiples of group_size={group_size} and "
            f"outputs in multiples of the groups, got {inputs} to {outputs} channels; choose "
            "another size."
        )
    return inputs // size
