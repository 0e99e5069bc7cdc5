"""Networks of convolutions over all channels."""

import torch
import torch.nn.functional as F
from mobile import conv_norm
from torch import nn


class Bottleneck(nn.Module):
    """Three convolutions, beside them the identity or a 1x1 convolution."""

    def __init__(self, inputs, width, outputs, stride, groups):
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(inputs, width, act=nn.ReLU),
            conv_norm(width, width, 3, stride, groups, nn.ReLU),
            conv_norm(width, outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.body(x))


class ResNet(nn.Module):
    """Four stages of bottlenecks: ResNet-50, or ResNeXt-50 with a width of 128 in 32 groups."""

    def __init__(self, width=64, groups=1):
        super().__init__()
        layers, inputs = [conv_norm(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
        for stage, repeats in enumerate((3, 4, 6, 3)):
            for i in range(repeats):
                outputs, stride = 256 << stage, 2 if stage and not i else 1
                layers.append(Bottleneck(inputs, width << stage, outputs, stride, groups))
                inputs = outputs
        self.body, self.head = nn.Sequential(*layers), nn.Linear(inputs, 1000)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Fire(nn.Module):
    """A 1x1 convolution, and behind it one of 1x1 beside one of 3x3."""

    def __init__(self, inputs, squeezed, features):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.sides = nn.ModuleList(
            [nn.Conv2d(squeezed, features, k, padding=k // 2) for k in (1, 3)]
        )

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(side(x)) for side in self.sides], 1)


class SqueezeNet(nn.Module):
    """Version 1.1."""

    def __init__(self):
        super().__init__()
        layers, inputs = [nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU()], 64
        for i, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
            layers += [nn.MaxPool2d(3, 2, 1)] if i in (0, 2, 4) else []
            layers.append(Fire(inputs, squeezed, 4 * squeezed))
            inputs = 8 * squeezed
        self.body, self.head = nn.Sequential(*layers), nn.Conv2d(inputs, 1000, 1)

    def forward(self, x):
        return F.relu(self.head(self.body(x))).mean((2, 3))


class ResidualPair(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width):
        super().__init__()
        one, other = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(one, nn.ReLU(), other)

    def forward(self, x):
        return x + self.body(x)


class SuperResolution(nn.Module):
    """The baseline of EDSR for twice the sides."""

    def __init__(self):
        super().__init__()
        wide = lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1)
        self.first = wide(3, 64)
        self.body = nn.Sequential(*[ResidualPair(64) for _ in range(16)], wide(64, 64))
        self.up, self.head = nn.Sequential(wide(64, 256), nn.PixelShuffle(2)), wide(64, 3)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.up(x + self.body(x)))


class VGG16(nn.Module):
    """Convolutions, and dense layers on the flat image."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for outputs, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(repeats):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        hidden = nn.Linear(7 * 7 * 512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()
        self.body = nn.Sequential(*layers, nn.Flatten(), *hidden)
        self.head = nn.Linear(4096, 1000)

    def forward(self, x):
        return self.head(self.body(x))


class DenseLayer(nn.Module):
    """32 channels more."""

    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x):
        h = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(h)))], 1)


class DenseNet121(nn.Module):
    """Four stages, with halves between them."""

    def __init__(self):
        super().__init__()
        layers = [conv_norm(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for stage, repeats in enumerate((6, 12, 24, 16)):
            if stage:
                half = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
                layers += [nn.BatchNorm2d(inputs), nn.ReLU(), half, nn.AvgPool2d(2)]
                inputs //= 2
            for _ in range(repeats):
                layers.append(DenseLayer(inputs))
                inputs += 32
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU())
        self.head = nn.Linear(inputs, 1000)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class UNet(nn.Module):
    """Four levels down and up, joined at each."""

    def __init__(self, channels=64, levels=4):
        super().__init__()
        self.down, self.open, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = 3
        for level in range(levels + 1):
            self.down.append(self.twice(inputs, channels << level))
            inputs = channels << level
        for level in reversed(range(levels)):
            self.open.append(nn.ConvTranspose2d(channels << level + 1, channels << level, 2, 2))
            self.up.append(self.twice(channels << level + 1, channels << level))
        self.head = nn.Conv2d(channels, 2, 1)

    @staticmethod
    def twice(inputs, outputs):
        """Two convolutions."""
        one, other = (
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        return nn.Sequential(one, nn.ReLU(), other, nn.ReLU())

    def forward(self, x):
        kept = []
        for body in self.down[:-1]:
            kept.append(body(x))
            x = F.max_pool2d(kept[-1], 2)
        x = self.down[-1](x)
        for opened, body in zip(self.open, self.up, strict=True):
            x = body(torch.cat([kept.pop(), opened(x)], 1))
        return self.head(x)


class Generator(nn.Module):
    """DCGAN's."""

    def __init__(self):
        super().__init__()
        self.project, layers = nn.Linear(100, 512 * 4 * 4, bias=False), []
        for inputs, outputs in ((512, 256), (256, 128), (128, 64)):
            up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), up]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False)

    def forward(self, noise):
        x = self.project(noise).reshape(len(noise), -1, 4, 4)
        return torch.tanh(self.head(self.body(x)))


class Autoencoder(nn.Module):
    """Three convolutions, a code of 256 numbers, and the way back."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs in ((3, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ELU()]
        self.down = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 8 * 256, 256))
        self.back = nn.Linear(256, 8 * 8 * 256)
        up = (
            nn.ConvTranspose2d(256, 128, 2, 2),
            nn.ELU(),
            nn.ConvTranspose2d(128, 64, 2, 2),
            nn.ELU(),
        )
        self.up, self.head = nn.Sequential(*up), nn.ConvTranspose2d(64, 3, 2, 2)

    def forward(self, x):
        x = F.relu(self.back(self.down(x))).reshape(len(x), -1, 8, 8)
        return self.head(self.up(x))


class Pyramid(nn.Module):
    """Plain stages, a feature pyramid on them, and the heads of a detector."""

    def __init__(self):
        super().__init__()
        self.stages, inputs = nn.ModuleList(), 3
        for outputs in (64, 128, 256, 512):
            down = conv_norm(inputs, outputs, 3, 2, act=nn.ReLU)
            self.stages.append(nn.Sequential(down, conv_norm(outputs, outputs, 3, act=nn.ReLU)))
            inputs = outputs
        self.sides = nn.ModuleList([nn.Conv2d(n, 256, 1) for n in (128, 256, 512)])
        self.between = nn.Conv2d(256, 256, 3, padding=1)
        self.heads = nn.ModuleList([nn.Conv2d(256, n, 3, padding=1) for n in (36, 180)])

    def forward(self, x):
        x, levels = self.stages[0](x), []
        for stage, side in zip(self.stages[1:], self.sides, strict=True):
            x = stage(x)
            levels.append(side(x))
        for low in (1, 0):
            levels[low] = levels[low] + F.interpolate(levels[low + 1], scale_factor=2)
        levels = [F.relu(self.between(level)) for level in levels]
        flat = lambda x, n: x.permute(0, 2, 3, 1).reshape(len(x), -1, n)
        return [
            torch.cat([flat(head(level), n) for level in levels], 1)
            for head, n in zip(self.heads, (4, 20), strict=True)
        ]


class TwoInputs(nn.Module):
    """An image and a vector: features of one are gated by the other, and joined with it."""

    def __init__(self):
        super().__init__()
        layers = conv_norm(3, 64, 3, 2, act=nn.ReLU), conv_norm(64, 128, 3, 2, act=nn.ReLU)
        self.body, self.vector = nn.Sequential(*layers), nn.Linear(64, 256)
        self.gate, self.mix = nn.Linear(256, 128), nn.Linear(128 + 256, 256)
        self.head = nn.Linear(256, 10)

    def forward(self, x, vector):
        h = F.relu(self.vector(vector))
        x = self.body(x).mean((2, 3)) * torch.sigmoid(self.gate(h))
        return self.head(F.relu(self.mix(torch.cat([x, h], 1))))
