"""Small networks of eight families of blocks, whose architecture an attack is to tell.

Inference only, batch norm folded: `BlockNet(...).apply(variables, images)` gives logits.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import sparsejax as sj

Images = Float[Array, "batch height width channels"]
Conv = Callable[..., Array]  # (x, features, kernel size, stride, groups)


class Skeleton(NamedTuple):
    """What networks of all families have: outputs and stride of each block."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


def random_skeleton(rng: np.random.Generator) -> Skeleton:
    """Three to six blocks; where one has a stride of 2, channels double."""
    count = int(rng.integers(3, 7))
    strides = tuple(int(s) for s in rng.integers(1, 3, count))
    first = int(rng.choice((16, 24, 32, 48)))
    doubled = np.cumsum([stride == 2 for stride in strides])
    return Skeleton(tuple(int(first << d) for d in np.minimum(doubled, 2)), strides)


def plain(conv: Conv, x: Array, features: int, stride: int, size: int) -> Array:
    """One convolution of a size."""
    return nn.relu(conv(x, features, size, stride))


def separable(conv: Conv, x: Array, features: int, stride: int, size: int) -> Array:
    """MobileNet-v1: a depthwise convolution of a size and a 1x1."""
    x = nn.relu(conv(x, x.shape[-1], size, stride, x.shape[-1]))
    return nn.relu(conv(x, features))


def inverted(conv: Conv, x: Array, features: int, stride: int, expansion: int) -> Array:
    """MobileNet-v2: expanded, depthwise, back without activation, beside them the identity."""
    y = nn.relu6(conv(x, x.shape[-1] * expansion))
    y = conv(nn.relu6(conv(y, y.shape[-1], 3, stride, y.shape[-1])), features)
    return x + y if x.shape == y.shape else y


def fire(conv: Conv, x: Array, features: int, stride: int, ratio: int) -> Array:
    """SqueezeNet: squeezed by a ratio, expanded by a 1x1 and a 3x3 side by side."""
    y = nn.relu(conv(x, features // ratio, 1, stride))
    return nn.relu(jnp.concatenate([conv(y, features // 2), conv(y, features // 2, 3)], -1))


def shuffle(conv: Conv, x: Array, features: int, stride: int, groups: int) -> Array:
    """ShuffleNet: 1x1 convolutions in groups, channels shuffled between, a depthwise one."""
    y = nn.relu(conv(x, features, 1, 1, groups))
    y = y.reshape(*y.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(y.shape)
    y = conv(conv(y, features, 3, stride, features), features, 1, 1, groups)
    return nn.relu(x + y if x.shape == y.shape else y)


def dense(conv: Conv, x: Array, features: int, stride: int, growth: int) -> Array:
    """DenseNet: three 3x3 convolutions that add channels, a 1x1 behind them."""
    for _ in range(3):
        x = jnp.concatenate([x, nn.relu(conv(x, growth, 3))], axis=-1)
    return nn.relu(conv(x, features, 1, stride))


def bottleneck(conv: Conv, x: Array, features: int, stride: int, ratio: int) -> Array:
    """ResNet: 1x1, 3x3 and 1x1 with fewer channels within, beside them the identity."""
    y = nn.relu(conv(x, features // ratio))
    y = conv(nn.relu(conv(y, features // ratio, 3, stride)), features)
    as_it_is = stride == 1 and x.shape[-1] == features  # for images of any size
    return nn.relu(y + (x if as_it_is else conv(x, features, 1, stride)))


def attended(conv: Conv, x: Array, features: int, stride: int, groups: int) -> Array:
    """A separable block with subspace attention in groups behind it."""
    return sj.nn.ULSAMLinen(groups)(separable(conv, x, features, stride, 3), train=False)


def grouped(conv: Conv, x: Array, features: int, stride: int, size: int) -> Array:
    """A separable block with groups of so many channels: what hides it (Secure MobileNet-v1)."""
    x = nn.relu(conv(x, x.shape[-1], 3, stride, x.shape[-1] // size))
    return nn.relu(conv(x, features))


# The settings that an attack is to tell, of each family.
FAMILIES: dict[Callable[..., Array], Sequence[int]] = {
    plain: (3, 5, 7),
    separable: (3, 5, 7),
    inverted: (2, 4, 6),
    fire: (2, 4, 8),
    shuffle: (2, 4, 8),
    dense: (8, 16, 32),
    bottleneck: (2, 4, 8),
    attended: (1, 2, 4),
}


class BlockNet(nn.Module):
    """A 3x3 convolution, blocks of one family and setting, and a head over the mean."""

    skeleton: Skeleton
    family: Callable[..., Array]
    setting: int
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "batch classes"]:
        """Logits."""

        def conv(x: Array, features: int, size: int = 1, stride: int = 1, groups: int = 1) -> Array:
            return nn.Conv(features, (size, size), stride, feature_group_count=groups)(x)

        x = nn.relu(conv(x, self.skeleton.channels[0], 3))
        for features, stride in zip(*self.skeleton, strict=True):
            x = self.family(conv, x, features, stride, self.setting)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def random_weights(module: nn.Module, images: Any, seed: int, sparsity: float = 0.0) -> Any:
    """Variables by NumPy, scaled so that numbers stay; of kernels a fraction is zero."""
    rng = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) < 2:
            return rng.uniform(0.5, 1, leaf.shape).astype(leaf.dtype)
        values = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return (values * (rng.random(leaf.shape) >= sparsity)).astype(leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(module.init, jax.random.key(0), images))
