"""The networks of the experiments: functions (image shape, classes, seed) -> NNX module."""

from collections.abc import Callable

from flax import nnx

from experiments.models.mobilenet_v1 import MobileNetV1

ImageShape = tuple[int, int, int]  # height, width, channels
MakeNet = Callable[[ImageShape, int, int], nnx.Module]
MOMENTUM = 0.97  # statistics over the last thousands of images, not the last hundreds


def mobilenet_v1_quarter(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.25 with the stem's stride of 2, as in the paper."""
    return _mobilenet_v1(image, classes, seed, width=0.25)


def mobilenet_v1_half(image: ImageShape, classes: int, seed: int) -> nnx.Module:
    """MobileNet-v1 of width 0.5 with the stem's stride of 2, as in the paper."""
    return _mobilenet_v1(image, classes, seed, width=0.5)


def _mobilenet_v1(image: ImageShape, classes: int, seed: int, *, width: float) -> nnx.Module:
    return MobileNetV1(
        in_channels=image[2],
        num_classes=classes,
        width=width,
        momentum=MOMENTUM,
        rngs=nnx.Rngs(seed),
    )
