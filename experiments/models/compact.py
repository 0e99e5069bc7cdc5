"""MobileNet-v1 of width 0.25 with attention or groups for some of its layers, as tables need it."""

from typing import Any

from flax import nnx

from experiments.models.attention import Attention
from experiments.models.mobilenet_v1 import MobileNetV1, at_most, groups_of
from experiments.models.networks import MOMENTUM, ImageShape

REPLACED = 9  # the last but one of five equal blocks; which one the authors took is not known


def ulsam_1(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """Subspace attention with one map in the place of a block."""
    return _attended(image, classes, seed, 1)


def ulsam_2(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """The same with 2 maps."""
    return _attended(image, classes, seed, 2)


def ulsam_4(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """The same with 4 maps."""
    return _attended(image, classes, seed, 4)


def ulsam_8(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """The same with 8 maps."""
    return _attended(image, classes, seed, 8)


def without_block(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """With nothing in the place of the block."""
    net = _attended(image, classes, seed, 1)
    del net.blocks[REPLACED]
    return net


def groups_of_4(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """Groups of 4 channels for depthwise convolutions."""
    return _quarter(image, classes, seed, groups=groups_of(4))


def groups_of_8(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """Groups of 8 channels."""
    return _quarter(image, classes, seed, groups=groups_of(8))


def groups_of_16(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """Groups of 16 channels."""
    return _quarter(image, classes, seed, groups=groups_of(16))


def in_4_groups(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """4 groups for depthwise convolutions."""
    return _quarter(image, classes, seed, groups=at_most(4))


def in_8_groups(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """8 groups."""
    return _quarter(image, classes, seed, groups=at_most(8))


def in_16_groups(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """16 groups."""
    return _quarter(image, classes, seed, groups=at_most(16))


def _attended(image: ImageShape, classes: int, seed: int, maps: int) -> nnx.Module:
    return _quarter(image, classes, seed, attention=[Attention(REPLACED, maps, replaces=True)])


def _quarter(image: ImageShape, classes: int, seed: int, **options: Any) -> MobileNetV1:
    options |= {"in_channels": image[2], "num_classes": classes, "momentum": MOMENTUM}
    return MobileNetV1(width=0.25, rngs=nnx.Rngs(seed), **options)
