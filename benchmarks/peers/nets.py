"""The networks and layers to measure: their function, their weights, which of them are pruned."""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import sparsejax as sj
from benchmarks.peers.bars import BLOCK, DENSE, UNSTRUCTURED
from experiments.models.efficientnet_b0 import EfficientNetB0Linen
from experiments.models.mobilenet_v1 import MobileNetV1Linen, shifted_depthwise
from experiments.models.mobilenet_v2 import MobileNetV2Linen
from experiments.models.resnet import ResNet18Linen, ResNet50Linen
from experiments.models.variables import random_statistics

PATTERNS: dict[str, sj.Pattern | None] = {
    DENSE: None,
    UNSTRUCTURED: sj.Unstructured(),
    BLOCK: sj.Block(4, 1),
}

POINTWISE = "(pointwise|expand|project|top)/kernel"  # the 1x1 convolutions
RESIDUAL = r"(conv\d|shortcut)/kernel"  # all convolutions but the first


class Net(NamedTuple):
    """A network or a layer.

    Attributes:
        apply: (variables, x) -> outputs.
        shifted: the same with depthwise convolutions as shifted multiply-adds, or None.
        init: (key, x) -> dense variables.
        shape: of one input.
        pruned: a regular expression for the paths of the weights that are pruned.
    """

    apply: Callable[[Any, jax.Array], jax.Array]
    shifted: Callable[[Any, jax.Array], jax.Array] | None
    init: Callable[[jax.Array, jax.Array], Any]
    shape: tuple[int, ...]
    pruned: str


def variables_of(net: Net, pattern: str, sparsity: float) -> Any:
    """Random weights and statistics, with the smallest of the pruned leaves set to zero."""
    x = jnp.zeros((1, *net.shape))
    dense = random_statistics(jax.jit(net.init)(jax.random.key(0), x))
    chosen = PATTERNS[pattern]

    def prune(path: str, leaf: jax.Array) -> jax.Array:
        if chosen is None or not re.search(net.pruned, path):
            return leaf
        return jnp.where(chosen.mask(jnp.abs(leaf), sparsity), leaf, 0)

    return sj.tree.map_with_paths(prune, dense)


def input_of(net: Net, batch: int) -> jax.Array:
    """A random input."""
    return jax.random.normal(jax.random.key(1), (batch, *net.shape))


def _flax(model: Any, pruned: str, shifted: Any = None) -> Net:
    """A Flax linen image network with batch norm."""
    plain, fast = (m and functools.partial(m.apply, train=False) for m in (model, shifted))
    return Net(plain, fast, model.init, (224, 224, 3), pruned)


def _linear(inputs: int, outputs: int, shape: tuple[int, ...]) -> Net:
    """x @ kernel + bias."""

    def init(key: jax.Array, _: jax.Array) -> dict[str, jax.Array]:
        kernel = jax.random.normal(key, (inputs, outputs)) / inputs**0.5
        return {"kernel": kernel, "bias": jax.random.normal(key, (outputs,))}

    apply = lambda params, x: x @ params["kernel"] + params["bias"]
    return Net(apply, None, init, shape, "kernel")


def mobilenet_v1() -> Net:
    shifted = MobileNetV1Linen(depthwise=shifted_depthwise)
    return _flax(MobileNetV1Linen(), POINTWISE, shifted)


NETS: dict[str, Callable[[], Net]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": lambda: _flax(MobileNetV2Linen(), POINTWISE),
    "efficientnet_b0": lambda: _flax(EfficientNetB0Linen(), POINTWISE),
    "resnet18": lambda: _flax(ResNet18Linen(), RESIDUAL),
    "resnet50": lambda: _flax(ResNet50Linen(), RESIDUAL),
    "linear 768-768": lambda: _linear(768, 768, (128, 768)),
    "linear 768-3072": lambda: _linear(768, 3072, (128, 768)),
    "linear 3072-768": lambda: _linear(3072, 768, (128, 3072)),
    "matrix-vector 4096x1024": lambda: _linear(1024, 4096, (1024,)),
}
