"""Layers whose kept inputs stand in for those that were removed, by least squares."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from sparsejax.jaxprs.calibrate import LayerInputs
from sparsejax.tree import leaves_with_paths, map_with_paths

RIDGE = 1e-6  # of the mean square of an input, for inputs that say the same


def reconstructed(params: Any, masked: Any, calibration: Mapping[str, LayerInputs]) -> Any:
    """The masked params, with kernels that give nearly what they gave with all inputs.

    min ||X W - X_kept W'||^2 for each calibrated layer that has lost inputs, over the rows of the
    calibration. Outputs that are gone stay gone.

    Args:
      params: of the whole network.
      masked: the same with zeros where channels go, of `ChannelSearch.masked`.
      calibration: of `sj.post.calibrate` on the whole network, with a plan of the layers.

    Reference: He et al., "AMC", ECCV 2018, arXiv 1802.03494, after He et al., "Channel Pruning for
    Accelerating Very Deep Neural Networks", ICCV 2017, arXiv 1707.06168. Differs: X are the inputs
    of the whole network, where the authors' code takes those of the network that is pruned so far;
    so all layers share one pass over the data for a whole search.
    """
    whole = dict(leaves_with_paths(params))

    def solved(path: str, leaf: Any) -> Any:
        if path not in calibration:
            return leaf
        layer = calibration[path]
        weights = layer.to_matrices(np.asarray(whole[path], np.float64))
        there = layer.to_matrices(np.asarray(leaf)) != 0
        found = np.zeros_like(weights)
        for group, own in enumerate(weights):
            kept = there[group].any(0)
            found[group][:, kept] = _solved(own, _gram(layer, path)[group], kept)
        found *= there.any(2, keepdims=True)
        return layer.from_matrices(found, leaf.shape).astype(leaf.dtype)

    return map_with_paths(solved, masked)


def _gram(layer: LayerInputs, path: str) -> Float[np.ndarray, "groups inputs inputs"]:
    if layer.gram is None:
        raise ValueError(f"reconstructed needs the gram of {path}; calibrate with gram=True.")
    return layer.gram


def _solved(
    weights: Float[np.ndarray, "outputs inputs"],
    gram: Float[np.ndarray, "inputs inputs"],
    kept: np.ndarray,
) -> Float[np.ndarray, "outputs kept"]:
    if kept.all():
        return weights
    own = gram[np.ix_(kept, kept)]
    ridge = RIDGE * max(float(np.diag(gram).mean()), np.finfo(np.float64).tiny)
    return np.linalg.solve(own + ridge * np.eye(len(own)), (weights @ gram[:, kept]).T).T
