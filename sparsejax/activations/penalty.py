"""The L1 norm of activation maps, with a strength for each layer."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax.doors import named
from sparsejax.plans.rules import check_regex
from sparsejax.tree import leaves_with_paths

COLLECTION = "activation_maps"


def l1(maps: Any, strengths: float | Mapping[str, float]) -> Float[Array, ""]:
    """sum_l strength_l / N sum_n ||x_l,n||_1 over the layers l and the N examples n of a batch.

    To be added to the loss: each positive value then gets strength_l / N more of gradient, zeros
    get none. It belongs on the map behind the ReLU: before a batch norm a network would shrink its
    scale instead. The sum over a map is not divided by its size, so that a useful strength is some
    1e-8 to 1e-5, less for larger maps.

    Args:
      maps: a tree of maps whose first axis is the batch, of `with_maps` or of linen's `sow`.
      strengths: one for all, or those of the regular expressions that are searched in the paths,
        the first that is found; a map with none has no part.

    Raises:
      TypeError: the strengths are neither.
      ValueError: there is no map, one has no batch, a strength is negative, or an expression finds
        no map.

    Example:
      >>> sj.activations.l1({"relu": jnp.array([[0.0, 2.0], [1.0, 0.0]])}, 0.5)
      Array(0.75, dtype=float32)

    Differs: the formula is remembered with confidence, not read.

    Reference: Georgiadis, "Accelerating Convolutional Neural Networks via Activation Map
    Compression", CVPR 2019, arXiv 1812.04056.
    """
    found = leaves_with_paths(maps)
    if not found:
        raise ValueError("l1 needs maps, got none; take them by with_maps or sow.")
    total = jnp.zeros((), jnp.float32)
    for (path, leaf), strength in zip(found, _of_each(found, strengths), strict=True):
        if leaf.ndim < 1:
            raise ValueError(f"l1 needs maps with the batch in front, got a scalar at {path}.")
        if strength and leaf.size:
            # The mean over the batch is by its length, which stays one under vmap of the loss.
            total += strength / len(leaf) * jnp.abs(leaf.astype(jnp.float32)).sum()
    return total


def _of_each(found: list[tuple[str, Any]], strengths: Any) -> list[float]:
    """The strength of each map."""
    if isinstance(strengths, int | float | jax.Array):
        strengths = {"": strengths}
    if not isinstance(strengths, Mapping):
        raise TypeError(
            f"l1 needs a strength or a dict of them, got {named(strengths)}; pass 1e-6, say."
        )
    for regex, strength in strengths.items():
        check_regex("l1", regex, 'pass {"relu": 1e-6}, say')
        if not any(re.search(regex, path) for path, _ in found):
            paths = ", ".join(path for path, _ in found[:8])
            raise ValueError(f"l1 needs a map for {regex!r}, there are {paths}.")
        if isinstance(strength, int | float) and not strength >= 0:
            raise ValueError(f"l1 needs strengths from 0 on, got {strength} for {regex!r}.")
    return [
        next((own for regex, own in strengths.items() if re.search(regex, path)), 0.0)
        for path, _ in found
    ]


def sow(module: Any, name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x itself; a linen module keeps it under this name in its collection "activation_maps".

    `model.apply(variables, x, mutable=["activation_maps"])` then gives the maps beside the outputs,
    a tree for `l1` and `density`; without `mutable` nothing is kept.

    Args:
      module: the linen module that calls, `self`.
      name: of the map.
      x: behind the ReLU.

    Raises:
      TypeError: the module has no `sow`, or is one of NNX: take `tap` and `with_maps` there.
    """
    if not hasattr(module, "sow") or not hasattr(module, "is_mutable_collection"):
        raise TypeError(
            f"sow needs a linen module, got {named(module)}; elsewhere take tap and with_maps."
        )
    module.sow(COLLECTION, name, x)
    return x
