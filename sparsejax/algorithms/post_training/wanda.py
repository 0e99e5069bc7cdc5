"""Pruning by weights and activations (Wanda): magnitudes times the norms of the inputs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from sparsejax.algorithms.post_training.surgeon import column_orders
from sparsejax.jaxprs.calibrate import LayerInputs, inputs_of
from sparsejax.masks.initial import InitialMasks, by_leaves, masks_of_leaves
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan


def wanda(calibration: Mapping[str, LayerInputs]) -> InitialMasks:
    """The masks that keep the weights with the largest |w_ij| * ||x_j||, with no training.

    x_j is input j of the layer over all calibration rows. `Unstructured` leaves compare the weights
    of one output with each other, so that every output keeps as many, +-1; other patterns rank
    their groups as they do with any score: n:m along the inputs is `NM(n, m)`.

    Differs: one more weight goes in some outputs, those with the lowest next score, where the
    leaf's count does not divide by the outputs. The code of the paper rounds down.

    Example:
      >>> calibration = sj.post.calibrate(model.apply, params, plan, [x], gram=False)
      >>> masks = sj.post.wanda(calibration)(params, plan)
      >>> tx = sj.sparsify(tx, method, plan, key=key, initial_masks=sj.post.wanda(calibration))

    Reference: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR
    2024, arXiv 2306.11695, equation 1 and algorithm 1.
    """

    def initial(params: Any, plan: Plan) -> Any:
        leaves = zip(plan.leaves, by_leaves(params, plan), strict=True)
        return masks_of_leaves(params, plan, [mask(*own) for own in leaves])

    def mask(leaf: PlanLeaf, weights: Any) -> Bool[Array, "..."]:
        inputs = inputs_of(calibration, leaf.path, "wanda")
        norms = np.sqrt(inputs.squares)[:, None].astype(np.float32)
        quota = leaf.pattern.quota(leaf.shape)
        if quota and not quota.unlimited:
            column_orders(leaf, inputs, "wanda")  # refuses groups across outputs
        back = np.argsort(inputs.positions, axis=None)
        target = leaf.pattern, leaf.sparsity, leaf.num_pruned
        return _mask(weights, norms, inputs.positions, back, target)

    return initial


@partial(jax.jit, static_argnames="target")  # one program for all layers that are alike
def _mask(weights: Any, norms: Any, positions: Any, back: Any, target: Any) -> Bool[Array, "..."]:
    pattern, sparsity, num_pruned = target
    scores = jnp.abs(weights.astype(jnp.float32).reshape(-1)[positions]) * norms
    in_leaf = lambda matrices: matrices.reshape(-1)[back].reshape(weights.shape)
    quota = pattern.quota(weights.shape)
    if quota and quota.unlimited:
        return in_leaf(_by_output(scores, num_pruned))
    return pattern.mask(in_leaf(scores), sparsity)


def _by_output(scores: Array, num_pruned: int) -> Bool[Array, "groups outputs inputs"]:
    """Each output without its lowest scores, num_pruned / outputs of them and the rest spread."""
    rows = scores.reshape(-1, scores.shape[-1])
    each, rest = divmod(num_pruned, len(rows))
    order = jnp.argsort(rows, axis=1)
    ranks = jnp.argsort(order, axis=1)
    if rest:
        following = jnp.take_along_axis(rows, order[:, each : each + 1], axis=1)[:, 0]
        extra = jnp.argsort(jnp.argsort(following)) < rest
        return (ranks >= each + extra[:, None]).reshape(scores.shape)
    return (ranks >= each).reshape(scores.shape)
