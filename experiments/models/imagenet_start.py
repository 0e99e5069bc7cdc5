"""MobileNet-v1 that starts from the packaged ImageNet weights, as a teacher of small images."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from experiments.models.mobilenet_v1 import DepthwiseSeparable, MobileNetV1
from experiments.models.networks import MOMENTUM, ImageShape
from experiments.models.pretrained import read_constants, variables_from


def mobilenet_v1_imagenet(image: ImageShape, classes: int, seed: int) -> MobileNetV1:
    """The whole network with a new head; its stem keeps small images' pixels.

    Of grey images it sees the same in all three colours.

    Raises:
        MissingError: the package with the weights is not installed.
    """
    net = MobileNetV1(
        in_channels=image[2],
        num_classes=classes,
        small_images=True,
        momentum=MOMENTUM,
        rngs=nnx.Rngs(seed),
    )
    variables = variables_from(read_constants())
    params, statistics = variables["params"], variables["batch_stats"]

    def fill(conv: nnx.Conv, norm: nnx.BatchNorm, name: str) -> None:
        kernel = params[name]["kernel"]
        grey = conv.kernel.shape[2] == 1 != kernel.shape[2]
        conv.kernel[...] = kernel.sum(2, keepdims=True) if grey else jnp.asarray(kernel)
        both: dict[str, Any] = {**params[f"{name}_norm"], **statistics[f"{name}_norm"]}
        for part, numbers in both.items():
            getattr(norm, part)[...] = numbers

    fill(net.stem, net.stem_norm, "stem")
    for i, block in enumerate(net.blocks):
        assert isinstance(block, DepthwiseSeparable)
        fill(block.depthwise, block.depthwise_norm, f"block{i}_depthwise")
        fill(block.pointwise, block.pointwise_norm, f"block{i}_pointwise")
    return net
