"""The networks' cases, and what ours is to reach in each, as data."""

from typing import NamedTuple


class Bar(NamedTuple):
    """Ours takes `at_most` of the peer's time, and `stretch` of it at best."""

    net: str
    pattern: str
    sparsity: float
    peer: str
    at_most: float
    stretch: float | None = None


DENSE, UNSTRUCTURED, BLOCK = "dense", "unstructured", "4x1"
LINEAR = ("linear 768-768", "linear 768-3072", "linear 3072-768")

BARS = (
    Bar("mobilenet_v1", DENSE, 0.0, "onnxruntime", 1.10, 0.95),
    Bar("mobilenet_v1", UNSTRUCTURED, 0.7, "onnxruntime", 0.60, 0.52),
    Bar("mobilenet_v1", UNSTRUCTURED, 0.8, "deepsparse", 0.70, 0.60),
    Bar("mobilenet_v1", UNSTRUCTURED, 0.9, "deepsparse", 0.62, 0.50),
    Bar("mobilenet_v1", UNSTRUCTURED, 0.9, "jax", 1 / 20, 1 / 28),
    Bar("mobilenet_v1", UNSTRUCTURED, 0.9, "jax shifted", 1 / 4.5, 1 / 5.5),
    Bar("mobilenet_v1", BLOCK, 0.5, "onnxruntime", 0.66, 0.55),
    Bar("mobilenet_v1", BLOCK, 0.7, "onnxruntime", 0.45, 0.40),
    Bar("mobilenet_v1", BLOCK, 0.8, "onnxruntime", 0.35, 0.30),
    Bar("mobilenet_v1", BLOCK, 0.9, "onnxruntime", 0.25, 0.20),
    Bar("mobilenet_v2", UNSTRUCTURED, 0.85, "onnxruntime", 0.5),
    Bar("efficientnet_b0", UNSTRUCTURED, 0.8, "onnxruntime", 0.5),
    Bar("resnet50", UNSTRUCTURED, 0.8, "onnxruntime", 0.65),
    Bar("resnet50", UNSTRUCTURED, 0.9, "onnxruntime", 0.45),
    *(Bar(layer, UNSTRUCTURED, 0.9, "deepsparse", 0.8) for layer in LINEAR),
    Bar("matrix-vector 4096x1024", UNSTRUCTURED, 0.9, "jax", 0.25),
)
# Measured too, without a bar of their own.
ALSO = (
    ("resnet50", DENSE, 0.0),
    ("mobilenet_v2", BLOCK, 0.85),
    ("efficientnet_b0", BLOCK, 0.8),
    ("resnet50", BLOCK, 0.8),
    ("resnet50", BLOCK, 0.9),
)


def cases() -> list[tuple[str, str, float]]:
    """Net, pattern and sparsity of everything to measure, each once, net by net."""
    found = dict.fromkeys([*((bar.net, bar.pattern, bar.sparsity) for bar in BARS), *ALSO])
    nets = list(dict.fromkeys(net for net, _, _ in found))
    return sorted(found, key=lambda case: nets.index(case[0]))
