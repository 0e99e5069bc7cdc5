"""A BERT-like encoder of any depth and widths, cut out of MiniLM: one program for all its layers.

The layers are stacked and scanned, so that a search compiles one layer for each choice of widths.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.models.minilm import Ids, Mask

EPSILON = 1e-12


class Sizes(NamedTuple):
    """What is searched: layers, features, hidden units of the perceptrons, and heads."""

    layers: int
    features: int
    hidden: int
    heads: int


def encode(
    params: Any, ids: Ids, mask: Mask, *, heads: int
) -> Float[Array, "batch tokens features"]:
    """The features of each token, 0 for padding, as `MiniLM` gives them.

    Args:
        params: of `cut_out`.
        ids, mask: of tokens.
        heads: of each layer; the width of one is that of the queries over it.
    """
    weight = mask[..., None]
    x = params["word"][ids] + params["position"][: ids.shape[1]] + params["token_type"][0]
    x = weight * _norm(params["norm"], x)

    def layer(x: Array, own: Any) -> tuple[Array, None]:
        x = weight * _norm(own["attention_norm"], x + _attention(own, x, mask, heads))
        y = jax.nn.gelu(_dense(own["up"], x), approximate=False)
        return weight * _norm(own["norm"], x + _dense(own["down"], weight * y)), None

    return jax.lax.scan(layer, x, params["layers"])[0]


def _attention(own: Any, x: Array, mask: Mask, heads: int) -> Array:
    split = lambda name: _dense(own[name], x).reshape(*x.shape[:2], heads, -1)
    query, key, value = split("query"), split("key"), split("value")
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(key.shape[-1])
    scores = jnp.where(mask[:, None, None, :] > 0, scores, -1e9)
    y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value)
    return _dense(own["out"], mask[..., None] * y.reshape(*x.shape[:2], -1))


def _dense(own: Any, x: Array) -> Array:
    return x @ own["kernel"] + own["bias"]


def _norm(own: Any, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    return centred * deviation * own["scale"] + own["bias"]


def cut_out(params: Mapping[str, Any], sizes: Sizes, *, heads: int) -> dict[str, Any]:
    """The params of a smaller encoder: evenly spaced layers, and their largest parts.

    Features go by the norm of their embeddings, hidden units and heads by the product of the norms
    before and behind them.

    Args:
        params: of a `MiniLM`.
        sizes: of what stays.
        heads: of the large one.
    """
    arrays = jax.tree.map(np.asarray, dict(params))
    count = sum(name.endswith("_up") for name in arrays)
    kept = np.linspace(0, count - 1, sizes.layers).round().astype(int)
    features = _largest(np.linalg.norm(arrays["word"]["embedding"], axis=0), sizes.features)
    layers = [_cut_layer(arrays, f"layer{i}_", features, sizes, heads) for i in kept]
    embedding = lambda name: jnp.asarray(arrays[name]["embedding"][:, features])
    return {
        **{name: embedding(name) for name in ("word", "position", "token_type")},
        "norm": _taken(arrays["norm"], features),
        "layers": jax.tree.map(lambda *own: jnp.stack(own), *layers),
    }


def _cut_layer(
    arrays: Any, name: str, features: np.ndarray, sizes: Sizes, heads: int
) -> dict[str, Any]:
    part = lambda what: arrays[name + what]
    norm = lambda own, axis: np.linalg.norm(own["kernel"], axis=axis)
    hidden = _largest(norm(part("up"), 0) * norm(part("down"), 1), sizes.hidden)
    behind = (norm(part("value"), 0) * norm(part("out"), 1)).reshape(heads, -1)
    width = behind.shape[1]
    inner = (_largest(behind.sum(1), sizes.heads)[:, None] * width + np.arange(width)).ravel()
    cuts = {"query": (features, inner), "key": (features, inner), "value": (features, inner)}
    cuts |= {"out": (inner, features), "up": (features, hidden), "down": (hidden, features)}
    return {
        **{
            what: {
                "kernel": part(what)["kernel"][np.ix_(rows, cols)],
                "bias": part(what)["bias"][cols],
            }
            for what, (rows, cols) in cuts.items()
        },
        "attention_norm": _taken(part("attention_norm"), features),
        "norm": _taken(part("norm"), features),
    }


def _taken(own: Mapping[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    return {name: leaf[which] for name, leaf in own.items()}


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The indices of the highest scores, ascending."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
