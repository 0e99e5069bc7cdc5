"""A small network of MobileNet blocks with several paths each, for 14x14 images, in plain JAX.

Five edges; the paths of each are three inverted bottlenecks, and the identity where shapes allow.
Norms are over the channels of a pixel, so that no path has statistics of the others.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import sparsejax as sj

KINDS = ((3, 2), (3, 4), (5, 4))  # pixels of the kernel, expansion
STEM = 16


class Edge(NamedTuple):
    """Channels before and behind, and stride."""

    inputs: int
    outputs: int
    stride: int

    @property
    def can_skip(self) -> bool:
        """Is the identity one of its paths, the last?"""
        return self.inputs == self.outputs and self.stride == 1


EDGES = (Edge(16, 16, 1), Edge(16, 24, 2), Edge(24, 24, 1), Edge(24, 40, 2), Edge(40, 40, 1))
NUM_PATHS = tuple(len(KINDS) + edge.can_skip for edge in EDGES)


def initial(seed: int, classes: int = 10) -> dict[str, Any]:
    """Params of the network with all its paths."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        fan_in = int(np.prod(shape[:-1]))
        return jnp.asarray(rng.normal(size=shape) * np.sqrt(2 / fan_in), jnp.float32)

    def norm(size: int) -> dict[str, Array]:
        return {"scale": jnp.ones(size), "shift": jnp.zeros(size)}

    def path(edge: Edge, pixels: int, expansion: int) -> dict[str, Any]:
        wide = edge.inputs * expansion
        return {
            "up": normal(edge.inputs, wide),
            "depthwise": normal(pixels, pixels, 1, wide),
            "down": normal(wide, edge.outputs),
            "norms": [norm(wide), norm(wide), norm(edge.outputs)],
        }

    return {
        "stem": normal(3, 3, 1, STEM),
        "stem_norm": norm(STEM),
        "edges": [[path(edge, *kind) for kind in KINDS] for edge in EDGES],
        "head": normal(EDGES[-1].outputs, classes),
        "bias": jnp.zeros(classes),
    }


def paths_of(edge: int) -> list[Callable[[Any, Array], Array]]:
    """The paths of an edge: functions of the params of all its paths, and of its input."""
    own = EDGES[edge]

    def block(number: int) -> Callable[[Any, Array], Array]:
        return lambda params, x: _bottleneck(params[number], x, own)

    skip = [lambda params, x: x] if own.can_skip else []
    return [*map(block, range(len(KINDS))), *skip]


def _bottleneck(params: Any, x: Array, edge: Edge) -> Float[Array, "batch h w outputs"]:
    first, second, third = params["norms"]
    y = jax.nn.relu6(_norm(first, x @ params["up"]))
    y = sj.depthwise_conv2d(y, params["depthwise"], strides=(edge.stride, edge.stride))
    y = _norm(third, jax.nn.relu6(_norm(second, y)) @ params["down"])
    return x + y if edge.can_skip else y


def _norm(params: Any, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
    return centred * deviation * params["scale"] + params["shift"]


def logits(
    params: Any,
    run: Callable[[int, Any, Array], Array],
    x: Float[Array, "batch 14 14 1"],
) -> Float[Array, "batch classes"]:
    """Logits, where `run(edge, params of the edge, input)` runs one or the other path."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, params["stem"], (1, 1), "SAME", dimension_numbers=dimensions
    )
    x = jax.nn.relu6(_norm(params["stem_norm"], x))
    for edge, own in enumerate(params["edges"]):
        x = run(edge, own, x)
    return x.mean((1, 2)) @ params["head"] + params["bias"]


def gated(
    params: Any, alphas: Any, gates: Any, x: Float[Array, "batch 14 14 1"]
) -> Float[Array, "batch classes"]:
    """Logits of the network whose gates choose."""
    run = lambda edge, own, x: sj.search.one_path(paths_of(edge), alphas[edge], gates[edge], own, x)
    return logits(params, run, x)


def chosen(
    params: Any, choice: Sequence[int], x: Float[Array, "batch 14 14 1"]
) -> Float[Array, "batch classes"]:
    """Logits of the network with these paths."""
    return logits(params, lambda edge, own, x: paths_of(edge)[choice[edge]](own, x), x)


def shapes(batch: int) -> list[tuple[int, int, int, int]]:
    """The shapes of the edges' inputs, for their times."""
    side, found = 14, []
    for edge in EDGES:
        found.append((batch, side, side, edge.inputs))
        side = -(-side // edge.stride)
    return found
