"""Pruning in one shot without training: functions (params, plan, calibrate) -> params.

`calibrate(gram)` runs the dense network on the calibration inputs, see `sj.post.calibrate`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import sparsejax as sj
from sparsejax.tree import map_with_paths

Calibrate = Callable[[bool], dict[str, sj.post.LayerInputs]]
Pruner = Callable[[Any, sj.Plan, Calibrate], Any]


def unpruned(params: Any, plan: sj.Plan, calibrate: Calibrate) -> Any:
    """The dense network."""
    del plan, calibrate
    return params


def magnitude(params: Any, plan: sj.Plan, calibrate: Calibrate) -> Any:
    """The smallest weights of each layer go: what the others are compared with."""
    del calibrate

    def prune(path: str, weights: Any) -> Any:
        leaf = plan.get(path)
        if leaf is None:
            return weights
        return jnp.where(leaf.pattern.mask(jnp.abs(weights), leaf.sparsity), weights, 0.0)

    return map_with_paths(prune, params)


def wanda(params: Any, plan: sj.Plan, calibrate: Calibrate) -> Any:
    """|w| * ||x||, compared within each output."""
    return sj.masked(params, sj.post.wanda(calibrate(False))(params, plan))


def sparse_gpt(params: Any, plan: sj.Plan, calibrate: Calibrate) -> Any:
    """SparseGPT with the paper's damping and blocks."""
    return sj.post.sparse_gpt(params, plan, calibrate(True))[0]
