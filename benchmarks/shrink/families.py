"""Families of image networks of published size that `experiments/models` has not.

`torch_side` has the same in PyTorch.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

norm = partial(nn.BatchNorm, use_running_average=True)
conv = partial(nn.Conv, use_bias=False)
AROUND = ((1, 1), (1, 1))


class DenseNet121(nn.Module):
    """Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, table 1."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.relu(norm()(conv(64, (7, 7), 2)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), AROUND)
        for stage, layers in enumerate((6, 12, 24, 16)):
            if stage:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for _ in range(layers):
                h = conv(128, (1, 1))(nn.relu(norm()(x)))
                h = conv(32, (3, 3))(nn.relu(norm()(h)))
                x = jnp.concatenate([x, h], -1)
        return nn.Dense(1000)(nn.relu(norm()(x)).mean((1, 2)))


class ShuffleUnit(nn.Module):
    """Half of the channels go through three convolutions, then all are shuffled."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """As many channels at half the sides, or the same shape."""
        depthwise = lambda x: norm()(
            conv(x.shape[-1], (3, 3), self.stride, feature_group_count=x.shape[-1])(x)
        )
        pointwise = lambda x: nn.relu(norm()(conv(self.features // 2, (1, 1))(x)))
        left, right = (x, x) if self.stride == 2 else jnp.split(x, 2, -1)
        if self.stride == 2:
            left = pointwise(depthwise(left))
        right = pointwise(depthwise(pointwise(right)))
        x = jnp.concatenate([left, right], -1)
        return x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)


class ShuffleNetV2(nn.Module):
    """Ma et al., "ShuffleNet V2: Practical Guidelines", ECCV 2018, table 5, 1x."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.relu(norm()(conv(24, (3, 3), 2)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), AROUND)
        for features, units in ((116, 4), (232, 8), (464, 4)):
            for unit in range(units):
                x = ShuffleUnit(features, 1 if unit else 2)(x)
        x = nn.relu(norm()(conv(1024, (1, 1))(x)))
        return nn.Dense(1000)(x.mean((1, 2)))


class ConvNeXt(nn.Module):
    """Liu et al., "A ConvNet for the 2020s", CVPR 2022: ConvNeXt-T."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        for width, layers in ((96, 3), (192, 3), (384, 9), (768, 3)):
            if width == 96:
                x = nn.LayerNorm()(nn.Conv(width, (4, 4), (4, 4))(x))
            else:
                x = nn.Conv(width, (2, 2), (2, 2))(nn.LayerNorm()(x))
            for layer in range(layers):
                h = nn.LayerNorm()(nn.Conv(width, (7, 7), feature_group_count=width)(x))
                h = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(h)))
                x = x + h * self.param(f"scale{width}_{layer}", nn.initializers.ones, (width,))
        return nn.Dense(1000)(nn.LayerNorm()(x.mean((1, 2))))


class Generator(nn.Module):
    """Radford et al., "Unsupervised Representation Learning", ICLR 2016, figure 1: of DCGAN."""

    @nn.compact
    def __call__(self, noise: jax.Array) -> jax.Array:
        """An image."""
        x = nn.Dense(4 * 4 * 512, use_bias=False)(noise).reshape(len(noise), 4, 4, -1)
        up = partial(nn.ConvTranspose, kernel_size=(4, 4), strides=(2, 2), use_bias=False)
        for features in (256, 128, 64, 3):
            x = up(features)(nn.relu(norm()(x)))
        return jnp.tanh(x)


class ResNeXt50(nn.Module):
    """Xie et al., "Aggregated Residual Transformations", CVPR 2017, table 1, 32x4d."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.relu(norm()(conv(64, (7, 7), 2)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), AROUND)
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                width, stride = 128 << stage, 2 if stage and not block else 1
                h = nn.relu(norm()(conv(width, (1, 1))(x)))
                h = nn.relu(norm()(conv(width, (3, 3), stride, feature_group_count=32)(h)))
                h = norm()(conv(2 * width, (1, 1))(h))
                x = nn.relu(h + (x if block else norm()(conv(2 * width, (1, 1), stride)(x))))
        return nn.Dense(1000)(x.mean((1, 2)))


class SqueezeNet(nn.Module):
    """Iandola et al., "SqueezeNet", 2016, arXiv:1602.07360: version 1.1."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.relu(nn.Conv(64, (3, 3), 2)(x))
        for i, (squeezed, features) in enumerate(FIRES):
            if i in (0, 2, 4):
                x = nn.max_pool(x, (3, 3), (2, 2), AROUND)
            s = nn.relu(nn.Conv(squeezed, (1, 1))(x))
            sides = [nn.relu(nn.Conv(features, (k, k))(s)) for k in (1, 3)]
            x = jnp.concatenate(sides, -1)
        return nn.relu(nn.Conv(1000, (1, 1))(x)).mean((1, 2))


FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# Of MobileNet-v3: size, hidden channels, outputs, is it gated, has it hard swish, stride.
ROWS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    *((5, 120, 40, True, False, 1),) * 2,
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    *((3, 184, 80, False, True, 1),) * 2,
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    *((5, 960, 160, True, True, 1),) * 2,
)


class MobileNetV3(nn.Module):
    """Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1, the large one."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        x = nn.hard_swish(norm()(conv(16, (3, 3), 2)(x)))
        for size, hidden, outputs, gated, hard, stride in ROWS:
            act, h = nn.hard_swish if hard else nn.relu, x
            if hidden != x.shape[-1]:
                h = act(norm()(conv(hidden, (1, 1))(h)))
            h = act(norm()(conv(hidden, (size, size), stride, feature_group_count=hidden)(h)))
            if gated:
                gate = nn.relu(nn.Conv(hidden // 4 + 4 & -8, (1, 1))(h.mean((1, 2), keepdims=True)))
                h = h * nn.hard_sigmoid(nn.Conv(hidden, (1, 1))(gate))
            h = norm()(conv(outputs, (1, 1))(h))
            x = x + h if h.shape == x.shape else h
        x = nn.hard_swish(norm()(conv(960, (1, 1))(x))).mean((1, 2))
        return nn.Dense(1000)(nn.hard_swish(nn.Dense(1280)(x)))


class SuperResolution(nn.Module):
    """Lim et al., "Enhanced Deep Residual Networks", CVPR workshops 2017: the baseline, twice."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """An image of twice the sides."""
        wide = lambda features: nn.Conv(features, (3, 3))
        first = x = wide(64)(x)
        for _ in range(16):
            x = x + wide(64)(nn.relu(wide(64)(x)))
        x = wide(256)(wide(64)(x) + first)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height, width, -1, 2, 2).transpose(0, 1, 4, 2, 5, 3)
        return wide(3)(x.reshape(batch, 2 * height, 2 * width, -1))


class Autoencoder(nn.Module):
    """Three convolutions, a code of 256 numbers, and the way back."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The image."""
        for features in (64, 128, 256):
            x = nn.elu(nn.Conv(features, (3, 3), 2)(x))
        code = nn.Dense(256)(x.reshape(len(x), -1))
        x = nn.relu(nn.Dense(x[0].size)(code)).reshape(x.shape)
        for features in (128, 64):
            x = nn.elu(nn.ConvTranspose(features, (2, 2), (2, 2))(x))
        return nn.ConvTranspose(3, (2, 2), (2, 2))(x)


class Pyramid(nn.Module):
    """Lin et al., "Feature Pyramid Networks", CVPR 2017, on plain stages, with detectors."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Boxes and classes of all places of three levels."""
        stages = []
        for features in (64, 128, 256, 512):
            x = nn.relu(norm()(conv(features, (3, 3), 2)(x)))
            x = nn.relu(norm()(conv(features, (3, 3))(x)))
            stages.append(x)
        levels = [nn.Conv(256, (1, 1))(stage) for stage in stages[1:]]
        for low in (1, 0):
            levels[low] += jnp.repeat(jnp.repeat(levels[low + 1], 2, 1), 2, 2)
        between, boxes, classes = (nn.Conv(n, (3, 3)) for n in (256, 36, 180))
        levels = [nn.relu(between(level)) for level in levels]
        flat = lambda head, n: [head(level).reshape(len(x), -1, n) for level in levels]
        return jnp.concatenate(flat(boxes, 4), 1), jnp.concatenate(flat(classes, 20), 1)


class TwoInputs(nn.Module):
    """An image and a vector: features of one are gated by the other, and joined with it."""

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Logits."""
        x, vector = inputs
        for features in (64, 128):
            x = nn.relu(norm()(conv(features, (3, 3), 2)(x)))
        h = nn.relu(nn.Dense(256)(vector))
        x = x.mean((1, 2)) * nn.sigmoid(nn.Dense(128)(h))
        return nn.Dense(10)(nn.relu(nn.Dense(256)(jnp.concatenate([x, h], -1))))
