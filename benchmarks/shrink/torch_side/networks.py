"""The networks of `benchmarks/shrink/networks.py` as users of PyTorch write them.

Sizes that pruning changes are read from the inputs or are -1, so that a pruned network runs. These
files must run in an environment that has PyTorch and none of ours.
"""

from functools import partial

from convolutional import (
    VGG16,
    Autoencoder,
    DenseNet121,
    Generator,
    Pyramid,
    ResNet,
    SqueezeNet,
    SuperResolution,
    TwoInputs,
    UNet,
)
from mobile import (
    ConvNeXt,
    MobileNetV1,
    MobileNetV3,
    ShuffleNetV2,
    efficientnet_b0,
    mobilenet_v2,
)
from sequences import GPT2, Bert, Decoder, Mixer, Recurrent, Swin, ViT
from torch import nn


def outputs_of(model):
    """The layers whose outputs are those of the network."""
    if isinstance(model, Decoder):
        return [m for layer in model.layers for m in (layer.attention.o, layer.down)]
    return list(model.heads) if isinstance(model, Pyramid) else [model.head]


IMAGE, TOKENS, SERIES = (1, 3, 224, 224), (1, 128), (64, 1, 128)
NETWORKS = {
    "mobilenet_v1": (MobileNetV1, IMAGE),
    "mobilenet_v2": (mobilenet_v2, IMAGE),
    "mobilenet_v3": (MobileNetV3, IMAGE),
    "efficientnet_b0": (efficientnet_b0, IMAGE),
    "resnet50": (ResNet, IMAGE),
    "resnext50": (partial(ResNet, 128, 32), IMAGE),
    "squeezenet": (SqueezeNet, IMAGE),
    "vgg16": (VGG16, IMAGE),
    "densenet121": (DenseNet121, IMAGE),
    "shufflenet_v2": (ShuffleNetV2, IMAGE),
    "convnext": (ConvNeXt, IMAGE),
    "vit": (ViT, IMAGE),
    "unet": (UNet, (1, 3, 128, 128)),
    "generator": (Generator, (1, 100)),
    "super_resolution": (SuperResolution, (1, 3, 48, 48)),
    "autoencoder": (Autoencoder, (1, 3, 64, 64)),
    "pyramid": (Pyramid, IMAGE),
    "two_inputs": (TwoInputs, IMAGE, (1, 64)),
    "mixer": (Mixer, IMAGE),
    "swin": (Swin, IMAGE),
    "bert": (Bert, TOKENS),
    "gpt2": (GPT2, TOKENS),
    "lstm": (partial(Recurrent, nn.LSTM), SERIES),
    "gru": (partial(Recurrent, nn.GRU), SERIES),
    "decoder": (Decoder, (1, 128, 512)),
}
