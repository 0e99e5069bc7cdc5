"""Small networks of many families as users of linen write them."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

norm = partial(nn.BatchNorm, use_running_average=True)


class ConvNorm(nn.Module):
    features: int
    kernel: int = 3
    strides: int = 1
    groups: int = 1
    act: object = nn.relu6

    @nn.compact
    def __call__(self, x):
        window, strides = (self.kernel, self.kernel), (self.strides, self.strides)
        conv = nn.Conv(
            self.features, window, strides, feature_group_count=self.groups, use_bias=False
        )
        x = norm()(conv(x))
        return self.act(x) if self.act else x


class SqueezeExcite(nn.Module):
    gate: object = nn.sigmoid

    @nn.compact
    def __call__(self, x):
        s = x.mean((1, 2), keepdims=True)
        s = nn.relu(nn.Conv(max(x.shape[-1] // 4, 4), (1, 1))(s))
        return x * self.gate(nn.Conv(x.shape[-1], (1, 1))(s))


class MobileNetV1(nn.Module):
    widths: Sequence[int] = (8, 16, 16, 24)

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(self.widths[0], strides=2)(x)
        for width in self.widths[1:]:
            x = ConvNorm(x.shape[-1], groups=x.shape[-1])(x)
            x = ConvNorm(width, 1)(x)
        return nn.Dense(5)(x.mean((1, 2)))


class InvertedResidual(nn.Module):
    features: int
    expand: int
    act: object = nn.relu6
    gate: object = None

    @nn.compact
    def __call__(self, x):
        h = ConvNorm(self.expand * x.shape[-1], 1, act=self.act)(x)
        h = ConvNorm(h.shape[-1], groups=h.shape[-1], act=self.act)(h)
        if self.gate:
            h = SqueezeExcite(self.gate)(h)
        h = ConvNorm(self.features, 1, act=None)(h)
        return x + h if h.shape == x.shape else h


class Inverted(nn.Module):
    act: object = nn.relu6
    gate: object = None

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(8, strides=2, act=self.act)(x)
        for width, expand in ((8, 1), (12, 3), (12, 3)):
            x = InvertedResidual(width, expand, self.act, self.gate)(x)
        x = ConvNorm(24, 1, act=self.act)(x).mean((1, 2))
        return nn.Dense(5)(x)


class Residual(nn.Module):
    features: int
    groups: int = 1
    strides: int = 1

    @nn.compact
    def __call__(self, x):
        width = self.features if self.groups == 1 else 2 * self.features
        h = ConvNorm(width, 1 if self.groups > 1 else 3, self.strides, act=nn.relu)(x)
        if self.groups > 1:
            h = ConvNorm(width, 3, groups=self.groups, act=nn.relu)(h)
        h = ConvNorm(self.features, 1 if self.groups > 1 else 3, act=None)(h)
        if h.shape != x.shape:
            x = ConvNorm(self.features, 1, self.strides, act=None)(x)
        return nn.relu(h + x)


class ResNet(nn.Module):
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(ConvNorm(8, 3, act=nn.relu)(x), (2, 2), (2, 2))
        for width, strides in ((8, 1), (16, 2), (16, 1)):
            x = Residual(width, self.groups, strides)(x)
        return nn.Dense(5)(x.mean((1, 2)))


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        for _ in range(2):
            for _ in range(3):
                h = nn.Conv(16, (1, 1), use_bias=False)(nn.relu(norm()(x)))
                h = nn.Conv(8, (3, 3), use_bias=False)(nn.relu(norm()(h)))
                x = jnp.concatenate([x, h], -1)
            x = nn.Conv(x.shape[-1] // 2, (1, 1), use_bias=False)(nn.relu(norm()(x)))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(5)(nn.relu(norm()(x)).mean((1, 2)))


class SqueezeNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), (2, 2))(x))
        for width in (8, 12):
            s = nn.relu(nn.Conv(width // 2, (1, 1))(x))
            x = [nn.relu(nn.Conv(width, (k, k))(s)) for k in (1, 3)]
            x = jnp.concatenate(x, -1)
        return nn.relu(nn.Conv(5, (1, 1))(x)).mean((1, 2))


class ShuffleNetV2(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = ConvNorm(16, strides=2, act=nn.relu)(x)
        for _ in range(2):
            left, right = jnp.split(x, 2, -1)
            right = ConvNorm(8, 1, act=nn.relu)(right)
            right = ConvNorm(8, groups=8, act=None)(right)
            x = jnp.concatenate([left, ConvNorm(8, 1, act=nn.relu)(right)], -1)
            x = x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)
        return nn.Dense(5)(ConvNorm(24, 1, act=nn.relu)(x).mean((1, 2)))


class VGG(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        return nn.Dense(5)(nn.relu(nn.Dense(24)(x)))


class UNet(nn.Module):
    widths: Sequence[int] = (8, 16)

    @nn.compact
    def __call__(self, x):
        skips = []
        for width in self.widths:
            x = nn.relu(nn.GroupNorm(4)(nn.Conv(width, (3, 3))(x)))
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(24, (3, 3))(x))
        for width, skip in zip(self.widths[::-1], skips[::-1], strict=True):
            x = nn.ConvTranspose(width, (2, 2), (2, 2))(x)
            x = nn.relu(nn.Conv(width, (3, 3))(jnp.concatenate([x, skip], -1)))
        return nn.Conv(2, (1, 1))(x)


class ConvNeXt(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(8, (2, 2), (2, 2))(x))
        for index in range(2):
            h = nn.LayerNorm()(nn.Conv(8, (3, 3), feature_group_count=8)(x))
            h = nn.Dense(8)(nn.gelu(nn.Dense(32)(h)))
            x = x + h * self.param(f"scale_{index}", nn.initializers.ones, (8,))
        return nn.Dense(5)(nn.LayerNorm()(x.mean((1, 2))))


class Encoder(nn.Module):
    """BERT: embeddings of tokens, places and types, post-norm layers, a mask of padding."""

    @nn.compact
    def __call__(self, tokens, types):
        x = nn.Embed(11, 16)(tokens) + nn.Embed(2, 16)(types)
        x = x + self.param("places", nn.initializers.normal(), (6, 16))
        mask = nn.make_attention_mask(tokens > 0, tokens > 0)
        x = nn.LayerNorm()(x)
        for _ in range(2):
            x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(4)(x, x, mask=mask))
            x = nn.LayerNorm()(x + nn.Dense(16)(nn.gelu(nn.Dense(32)(x))))
        return nn.Dense(3)(jnp.tanh(nn.Dense(16)(x[:, 0])))


class ScannedLayer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        h = nn.RMSNorm()(x)
        x = x + nn.Dense(16)(nn.silu(nn.Dense(24)(h)) * nn.Dense(24)(h))
        h = nn.RMSNorm()(x)
        return x + nn.MultiHeadDotProductAttention(4)(h, h), None


class Scanned(nn.Module):
    """Layers stacked in one array each, recomputed in the backward pass."""

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(ScannedLayer),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        return nn.Dense(3)(layers()(nn.Dense(16)(x), None)[0])


class Recurrent(nn.Module):
    cell: type = nn.GRUCell

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        x = nn.RNN(self.cell(12))(x)
        return nn.Dense(3)(nn.RNN(self.cell(8), reverse=True)(x)[:, -1])


IMAGE = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 6), jnp.int32)
SERIES = jax.ShapeDtypeStruct((2, 5, 4), jnp.float32)
MODELS = {
    "MobileNet-v1": (MobileNetV1(), IMAGE),
    "MobileNet-v2": (Inverted(), IMAGE),
    "MobileNet-v3": (Inverted(nn.hard_swish, nn.hard_sigmoid), IMAGE),
    "EfficientNet": (Inverted(nn.silu, nn.sigmoid), IMAGE),
    "ResNet": (ResNet(), IMAGE),
    "ResNeXt": (ResNet(4), IMAGE),
    "DenseNet": (DenseNet(), IMAGE),
    "SqueezeNet": (SqueezeNet(), IMAGE),
    "ShuffleNet-v2": (ShuffleNetV2(), IMAGE),
    "VGG": (VGG(), IMAGE),
    "U-Net": (UNet(), IMAGE),
    "ConvNeXt": (ConvNeXt(), IMAGE),
    "BERT": (Encoder(), TOKENS, TOKENS),
    "scanned layers": (Scanned(), SERIES),
    "GRU": (Recurrent(), SERIES),
    "LSTM": (Recurrent(nn.OptimizedLSTMCell), SERIES),
}


def built(name):
    """The function, shapes of its variables, and of its inputs."""
    model, *example = MODELS[name]
    return model.apply, jax.eval_shape(model.init, jax.random.key(0), *example), example
