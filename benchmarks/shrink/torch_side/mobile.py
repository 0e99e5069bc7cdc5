"""Networks of depthwise convolutions."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_norm(inputs, outputs, size=1, stride=1, groups=1, act=None):
    """A convolution, batch norm and what follows."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act()] if act else []))


class MobileNetV1(nn.Module):
    """Without its small numbers: blocks of a depthwise and a 1x1 convolution."""

    def __init__(self):
        super().__init__()
        strided = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
        shapes = (*strided, *((512, 1),) * 5, (1024, 2), (1024, 1))
        layers, inputs = [conv_norm(3, 32, 3, 2, act=nn.ReLU6)], 32
        for outputs, stride in shapes:
            layers.append(conv_norm(inputs, inputs, 3, stride, inputs, nn.ReLU6))
            layers.append(conv_norm(inputs, outputs, act=nn.ReLU6))
            inputs = outputs
        self.body, self.head = nn.Sequential(*layers), nn.Linear(inputs, 1000)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A gate for each channel."""

    def __init__(self, channels, squeezed):
        super().__init__()
        self.squeeze, self.excite = (
            nn.Conv2d(channels, squeezed, 1),
            nn.Conv2d(squeezed, channels, 1),
        )

    def forward(self, x):
        gate = F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.excite(gate))


class InvertedResidual(nn.Module):
    """A 1x1, a depthwise, perhaps a gate, and a linear 1x1 convolution."""

    def __init__(self, inputs, outputs, expansion, stride, size, act, gated):
        super().__init__()
        hidden = inputs * expansion
        layers = [conv_norm(inputs, hidden, act=act)] if expansion > 1 else []
        layers.append(conv_norm(hidden, hidden, size, stride, hidden, act))
        layers += [SqueezeExcite(hidden, inputs // 4)] if gated else []
        self.body = nn.Sequential(*layers, conv_norm(hidden, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class Inverted(nn.Module):
    """MobileNet-v2 and EfficientNet-B0: rows of expansion, channels, repeats, stride, size."""

    def __init__(self, stages, act, gated=False):
        super().__init__()
        layers, inputs = [conv_norm(3, 32, 3, 2, act=act)], 32
        for expansion, outputs, repeats, stride, size in stages:
            for i in range(repeats):
                own = 1 if i else stride
                layers.append(InvertedResidual(inputs, outputs, expansion, own, size, act, gated))
                inputs = outputs
        self.body = nn.Sequential(*layers, conv_norm(inputs, 1280, act=act))
        self.head = nn.Linear(1280, 1000)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def mobilenet_v2():
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    stages += ((6, 160, 3, 2), (6, 320, 1, 1))
    return Inverted([(*stage, 3) for stage in stages], nn.ReLU6)


def efficientnet_b0():
    stages = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3))
    stages += ((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    return Inverted(stages, nn.SiLU, gated=True)


class HardGate(nn.Module):
    """A gate for each channel by hard sigmoid."""

    def __init__(self, channels):
        super().__init__()
        squeezed = channels // 4 + 4 & -8
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        gate = F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.excite(gate))


class MobileNetV3Block(nn.Module):
    """As of MobileNet-v2, with its own hidden channels and activation."""

    def __init__(self, inputs, size, hidden, outputs, gated, hard, stride):
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU
        layers = [conv_norm(inputs, hidden, act=act)] if hidden != inputs else []
        layers.append(conv_norm(hidden, hidden, size, stride, hidden, act))
        layers += [HardGate(hidden)] if gated else []
        self.body = nn.Sequential(*layers, conv_norm(hidden, outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV3(nn.Module):
    """The large one: rows of size, hidden channels, outputs, gated, hard swish, stride."""

    def __init__(self):
        super().__init__()
        rows = [(3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1)]
        rows += [(5, 72, 40, 1, 0, 2), *[(5, 120, 40, 1, 0, 1)] * 2]
        rows += [(3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), *[(3, 184, 80, 0, 1, 1)] * 2]
        rows += [(3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1)]
        rows += [(5, 672, 160, 1, 1, 2), *[(5, 960, 160, 1, 1, 1)] * 2]
        layers, inputs = [conv_norm(3, 16, 3, 2, act=nn.Hardswish)], 16
        for size, hidden, outputs, *others in rows:
            layers.append(MobileNetV3Block(inputs, size, hidden, outputs, *others))
            inputs = outputs
        self.body = nn.Sequential(*layers, conv_norm(inputs, 960, act=nn.Hardswish))
        self.hidden, self.head = nn.Linear(960, 1280), nn.Linear(1280, 1000)

    def forward(self, x):
        return self.head(F.hardswish(self.hidden(self.body(x).mean((2, 3)))))


class ShuffleUnit(nn.Module):
    """Half of the channels go through three convolutions, then all are shuffled."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.stride = outputs // 2, stride
        if stride == 2:
            self.left = nn.Sequential(
                conv_norm(inputs, inputs, 3, 2, inputs), conv_norm(inputs, half, act=nn.ReLU)
            )
        self.right = nn.Sequential(
            conv_norm(inputs if stride == 2 else half, half, act=nn.ReLU),
            conv_norm(half, half, 3, stride, half),
            conv_norm(half, half, act=nn.ReLU),
        )

    def forward(self, x):
        if self.stride == 2:
            x = torch.cat([self.left(x), self.right(x)], 1)
        else:
            left, right = x.chunk(2, 1)
            x = torch.cat([left, self.right(right)], 1)
        batch, channels, height, width = x.shape
        shuffled = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return shuffled.reshape(batch, channels, height, width)


class ShuffleNetV2(nn.Module):
    """Three stages of units."""

    def __init__(self):
        super().__init__()
        layers, inputs = [conv_norm(3, 24, 3, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 24
        for outputs, units in ((116, 4), (232, 8), (464, 4)):
            for i in range(units):
                layers.append(ShuffleUnit(inputs, outputs, 1 if i else 2))
                inputs = outputs
        self.body = nn.Sequential(*layers, conv_norm(inputs, 1024, act=nn.ReLU))
        self.head = nn.Linear(1024, 1000)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class ChannelNorm(nn.Module):
    """Layer norm of the channels of an image."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtLayer(nn.Module):
    """A depthwise convolution and a perceptron on its channels."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x):
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.down(F.gelu(self.up(h))).permute(0, 3, 1, 2)
        return x + h * self.scale


class ConvNeXt(nn.Module):
    """ConvNeXt-T."""

    def __init__(self):
        super().__init__()
        layers, inputs = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96)], 96
        for width, repeats in ((96, 3), (192, 3), (384, 9), (768, 3)):
            if width > inputs:
                layers += [ChannelNorm(inputs), nn.Conv2d(inputs, width, 2, 2)]
            layers += [ConvNeXtLayer(width) for _ in range(repeats)]
            inputs = width
        self.body, self.norm = nn.Sequential(*layers), nn.LayerNorm(inputs)
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x):
        return self.head(self.norm(self.body(x).mean((2, 3))))
