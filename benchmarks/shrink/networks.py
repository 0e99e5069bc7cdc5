"""The networks: a function, random variables and an input of each."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.shrink import families, series
from experiments.models.efficientnet_b0 import EfficientNetB0Linen
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.models.mobilenet_v2 import MobileNetV2Linen
from experiments.models.resnet import ResNet50Linen
from experiments.models.transformers import GPT2Linen, ViTLinen
from experiments.models.unet import UNetLinen
from experiments.models.vgg import VGG16Linen

IMAGE = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
TOKENS = jax.ShapeDtypeStruct((1, 128), np.int32)
MODELS: dict[str, tuple[Any, Any]] = {
    "mobilenet_v1": (MobileNetV1Linen(), IMAGE),
    "mobilenet_v2": (MobileNetV2Linen(), IMAGE),
    "mobilenet_v3": (families.MobileNetV3(), IMAGE),
    "efficientnet_b0": (EfficientNetB0Linen(), IMAGE),
    "resnet50": (ResNet50Linen(), IMAGE),
    "resnext50": (families.ResNeXt50(), IMAGE),
    "squeezenet": (families.SqueezeNet(), IMAGE),
    "vgg16": (VGG16Linen(), IMAGE),
    "densenet121": (families.DenseNet121(), IMAGE),
    "shufflenet_v2": (families.ShuffleNetV2(), IMAGE),
    "convnext": (families.ConvNeXt(), IMAGE),
    "vit": (ViTLinen(), IMAGE),
    "unet": (UNetLinen(), jax.ShapeDtypeStruct((1, 128, 128, 3), np.float32)),
    "generator": (families.Generator(), jax.ShapeDtypeStruct((1, 100), np.float32)),
    "super_resolution": (
        families.SuperResolution(),
        jax.ShapeDtypeStruct((1, 48, 48, 3), np.float32),
    ),
    "autoencoder": (
        families.Autoencoder(),
        jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32),
    ),
    "pyramid": (families.Pyramid(), IMAGE),
    "two_inputs": (families.TwoInputs(), (IMAGE, jax.ShapeDtypeStruct((1, 64), np.float32))),
    "mixer": (series.Mixer(), IMAGE),
    "swin": (series.Swin(), IMAGE),
    "bert": (series.Bert(), TOKENS),
    "gpt2": (GPT2Linen(), TOKENS),
}
LAYERS, WIDTH, HEADS, SHARED, HIDDEN = 32, 512, 8, 4, 1408


def decoder() -> tuple[Callable, Any, Any]:
    """A causal decoder with grouped-query attention and gated layers, of 32 layers."""
    each = WIDTH // HEADS
    kernels = {"q": WIDTH, "k": SHARED * each, "v": SHARED * each, "gate": HIDDEN, "up": HIDDEN}
    shapes: dict[str, tuple[int, ...]] = {name: (WIDTH, size) for name, size in kernels.items()}
    shapes |= {"o": (WIDTH, WIDTH), "down": (HIDDEN, WIDTH), "n1": (WIDTH,), "n2": (WIDTH,)}
    layer = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}

    def norm(x: jax.Array, scale: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def attention(p: Any, h: jax.Array) -> jax.Array:
        q, k, v = ((h @ p[name]).reshape(len(h), -1, each) for name in "qkv")
        k, v = (jnp.repeat(x, HEADS // SHARED, axis=1) for x in (k, v))
        logits = jnp.einsum("qhd,khd->hqk", q, k) / each**0.5
        logits = jnp.where(np.tri(len(h), dtype=bool), logits, -1e9)
        out = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(logits), v)
        return out.reshape(len(h), -1) @ p["o"]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        for p in params:
            x = x + attention(p, norm(x, p["n1"]))
            h = norm(x, p["n2"])
            x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
        return x

    return apply, [layer] * LAYERS, jax.ShapeDtypeStruct((128, WIDTH), np.float32)


FUNCTIONS: dict[str, Callable] = {"lstm": series.lstm, "gru": series.gru, "decoder": decoder}
NAMES = (*MODELS, *FUNCTIONS)


def shapes_of(name: str) -> tuple[Callable, Any, Any]:
    """A function, and the shapes of its variables and input."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]()
    model, x = MODELS[name]
    return model.apply, jax.eval_shape(model.init, jax.random.key(0), x), x


def network(name: str) -> tuple[Callable, Any, Any]:
    """A function, random variables and an input."""
    rng = np.random.default_rng(0)
    apply, shapes, x = shapes_of(name)

    def weights(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        scale = max(np.prod(leaf.shape[:-1]), 1) ** -0.5
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32) * scale

    def values(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if np.issubdtype(leaf.dtype, np.integer):
            return rng.integers(0, 1000, leaf.shape).astype(leaf.dtype)
        return rng.normal(size=leaf.shape).astype(np.float32)

    return apply, jax.tree.map(weights, shapes), jax.tree.map(values, x)
