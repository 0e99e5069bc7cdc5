"""Recipes of methods with a dense weight underneath, and of AC/DC."""

from typing import Any

import jax
import numpy as np
import optax

import sparsejax as sj
from experiments.recipes import Setup, ramp

SCORES_RATE = 1e-2  # of movement's scores, as in the authors' README
MOVEMENT_PENALTY = 1.0  # a weight's share of it is as large as that of 400 in BERT
STR_START, STR_RATE = -12.0, 0.1


def pdp(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """PDP, the layers' targets from one threshold at its start."""
    begin, end, _ = ramp(setup)
    return sj.sparsify(_clipped(tx), sj.pdp(begin, end), setup.plan, key=setup.key)


def str_(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """STR for three quarters; what is then left above the plan's total goes, and s rests.

    Weight decay alone would move s from -12 to where sigmoid(s) prunes the plan's share of the
    initial weights (it cannot pass 1/2); its gradient does the rest.
    """
    end = setup.steps * 3 // 4
    goal = jax.scipy.special.logit(min(0.4, _magnitude_quantile(setup.params, setup.plan)))
    decay = np.log(STR_START / goal) / (STR_RATE * end)
    rate = optax.piecewise_constant_schedule(STR_RATE, {end: 0.0})
    thresholds = optax.chain(optax.add_decayed_weights(float(decay)), optax.sgd(rate))
    method = sj.str_(initial=STR_START, exact_from=end)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, learned_tx=thresholds)


def movement(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Movement pruning (hard), each layer to its own target."""
    begin, end, _ = ramp(setup)
    scores = optax.adam(SCORES_RATE)
    method = sj.movement(begin, end)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, learned_tx=scores)


def soft_movement(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Movement pruning (soft); what is left above the plan's total goes in the last quarter."""
    begin, end, _ = ramp(setup)
    method = sj.soft_movement(begin, end, penalty=MOVEMENT_PENALTY, exact_from=end)
    scores = optax.adam(SCORES_RATE)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, learned_tx=scores)


def sr_ste(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SR-STE, sparse from the first step on."""
    return sj.sparsify(tx, sj.sr_ste(), setup.plan, key=setup.key)


def straight_through(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """SR-STE without its decay of pruned weights: the plain straight-through estimator."""
    return sj.sparsify(tx, sj.sr_ste(decay=0.0), setup.plan, key=setup.key)


def top_kast(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Top-KAST with masks chosen anew at 1 % of the steps."""
    method = sj.top_kast(every=max(1, setup.steps // 100))
    return sj.sparsify(tx, method, setup.plan, key=setup.key)


def ac_dc(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """AC/DC: dense for a tenth, then phases of 5 %, sparse for good from 85 %."""
    begin, end, phase = (max(1, setup.steps * share // 100) for share in (10, 85, 5))
    return sj.sparsify(tx, sj.ac_dc(begin, end, phase), setup.plan, key=setup.key)


def spartan(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Spartan, each layer to its own target."""
    return sj.sparsify(tx, sj.spartan(setup.steps), setup.plan, key=setup.key)


def _magnitude_quantile(params: Any, plan: sj.Plan) -> float:
    """The threshold on |w| that prunes the plan's share of the planned weights."""
    leaves = dict(sj.tree.leaves_with_paths(params))
    flat = np.concatenate([np.abs(np.asarray(leaves[leaf.path])).ravel() for leaf in plan.leaves])
    return float(np.quantile(flat, plan.sparsity))


def _clipped(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Soft masks multiply gradients beside the threshold."""
    return optax.chain(optax.clip_by_global_norm(1.0), tx)
