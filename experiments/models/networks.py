"""The networks of the experiments: functions (image shape, classes, seed) -> NNX module."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx

from experiments.models.activations import PACT
from experiments.models.efficientnet_b0 import EfficientNetB0
from experiments.models.mobilenet_v1 import MobileNetV1
from experiments.models.mobilenet_v2 import MobileNetV2
from experiments.models.resnet import ResNet50
from experiments.models.resnet_small import SmallResNet, WideResNet
from experiments.models.vgg13 import VGG13

ImageShape = tuple[int, int, int]  # height, width, channels
MakeNet = Callable[[ImageShape, int, int], nnx.Module]
MOMENTUM = 0.97  # statistics over the last thousands of images, not the last hundreds


def mobilenet_v1_quarter(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.25 with the stem's stride of 2, as in the paper."""
    return _mobilenet_v1(image, classes, seed, width=0.25)


def mobilenet_v1_quarter_pact(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.25 with activations that learn where they end."""
    return _mobilenet_v1(image, classes, seed, width=0.25, activation=PACT)


def mobilenet_v1_quarter_pact_2_bits(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """The same with activations of four levels."""
    return _mobilenet_v1(image, classes, seed, width=0.25, activation=partial(PACT, 2))


def mobilenet_v1_quarter_small(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.25 for small images: the stem keeps their pixels."""
    return _mobilenet_v1(image, classes, seed, width=0.25, small_images=True)


def mobilenet_v1_half(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.5 with the stem's stride of 2, as in the paper."""
    return _mobilenet_v1(image, classes, seed, width=0.5)


def mobilenet_v1_half_small(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.5 for small images: the stem keeps their pixels."""
    return _mobilenet_v1(image, classes, seed, width=0.5, small_images=True)


def mobilenet_v2(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v2; it divides a side by 32."""
    return MobileNetV2(**_options(image, classes, seed))


def mobilenet_v2_half(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v2 of width 0.5."""
    return MobileNetV2(width=0.5, **_options(image, classes, seed))


def efficientnet_b0_quarter(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """EfficientNet-B0 of width 0.25."""
    return EfficientNetB0(width=0.25, **_options(image, classes, seed))


def resnet20(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """ResNet-20 for small images; its 3x3 convolutions are r"conv[12]/kernel"."""
    return SmallResNet(20, **_options(image, classes, seed))


def resnet32(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """ResNet-32 for small images."""
    return SmallResNet(32, **_options(image, classes, seed))


def resnet50(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """ResNet-50 for large images."""
    return ResNet50(**_options(image, classes, seed))


def wrn_22_8(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """WRN-22-8 for small images."""
    return WideResNet(22, 8, **_options(image, classes, seed))


def wrn_28_8(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """WRN-28-8 for small images."""
    return WideResNet(28, 8, **_options(image, classes, seed))


def vgg13(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """VGG-13 with batch norm for small images; its convolutions are r"convs/.*kernel"."""
    return VGG13(**_options(image, classes, seed))


def vgg13_quarter(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """VGG-13 with a quarter of the channels."""
    return VGG13(width=0.25, **_options(image, classes, seed))


def _options(image: ImageShape, classes: int, seed: int) -> dict[str, Any]:
    return {
        "in_channels": image[2],
        "num_classes": classes,
        "momentum": MOMENTUM,
        "rngs": nnx.Rngs(seed),
    }


def _mobilenet_v1(image: ImageShape, classes: int, seed: int, **options: Any) -> nnx.Module:
    return MobileNetV1(**options, **_options(image, classes, seed))
