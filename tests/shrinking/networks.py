"""Params by NumPy, and the law of shrinking."""

import jax
import numpy as np

import sparsejax as sj
from sparsejax.shrinking.cut import positions, zeroed

RNG = np.random.default_rng(0)


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def filled(shapes):
    """Weights of the size that layers have, shifted from zero; variances are positive."""

    def weights(key_path, leaf):
        if not hasattr(leaf, "shape") or not np.issubdtype(leaf.dtype, np.floating):
            return leaf
        values = RNG.normal(size=leaf.shape) / max(np.prod(leaf.shape[:-1]), 1) ** 0.5 + 0.1
        if "var" in jax.tree_util.keystr(key_path):
            values = np.abs(values) + 0.5
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(weights, shapes)


def drawn(groups, fraction):
    """Which units stay, drawn; of each group one at least."""
    keep = {}
    for group in groups.prunable:
        own = np.ones(group.size, bool)
        own[RNG.permutation(group.size)[: int(fraction * group.size)]] = False
        keep[group.name] = own
    return keep


def masked(groups, params, keep):
    """The params with zeros in place of what goes."""
    shapes = {p: np.shape(x) for p, x in sj.tree.leaves_with_paths(params) if hasattr(x, "shape")}
    return zeroed(params, positions(groups, keep, shapes))


def distance(one, other):
    """The largest difference, as a fraction of the largest number."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)
