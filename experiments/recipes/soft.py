"""Recipes of methods with a dense weight underneath, and of AC/DC."""

from typing import Any

import jax
import numpy as np
import optax

import sparsejax as sj
from experiments.recipes import Setup, allocates, ramp, version

SCORES_RATE = 1e-2  # of movement's scores, as in the authors' README
MOVEMENT_PENALTY = 3.0  # at 1, 63 % of the weights were gone when 1,200 steps were at the cut
STR_START, STR_RATE = -12.0, 0.1
# A step of the paper's SGD at 0.1 with momentum 0.9 decays by 2e-4; so does one of Adam at 4e-3.
SR_STE_DECAY = 2e-4 * 0.1 / (1 - 0.9) / 4e-3


@allocates("global")
def pdp(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """PDP, the layers' targets from one threshold at its start; a temperature for large weights.

    Of 1e-4, 1e-3, 3e-3 and 1e-2 it is the best at 98 % and one seed: the paper's 1e-4 leaves hardly
    any soft band around these weights, and what is above loses most when the mask hardens.
    """
    return _pdp(tx, setup, temperature=1e-3)


def pdp_channels(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """PDP with the plan's target in each layer and the paper's temperature.

    One threshold over the network prunes all channels of some layers, which leaves nothing of it.
    """
    return _pdp(tx, setup, globally=False)


@allocates("global")
def pdp_pretrained(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """PDP from a pretrained net, at the paper's temperature."""
    return _pdp(tx, setup)


def _pdp(
    tx: optax.GradientTransformation, setup: Setup, **options: Any
) -> optax.GradientTransformation:
    begin, end, _ = ramp(setup)
    return sj.sparsify(tx, sj.soft.pdp(begin, end, **options), setup.plan, key=setup.key)


@allocates("learned, then cut globally")
def str_(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """STR for three quarters, then s rests; from half on it is held to gmp's ramp."""
    return _str(tx, setup, exact_from=setup.steps // 2, exact_by=setup.steps * 3 // 4)


@allocates("learned")
def str_uncut(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """STR for three quarters, then s rests: how sparse it is then is what it came to."""
    return _str(tx, setup)


def _str(
    tx: optax.GradientTransformation, setup: Setup, **cut: int
) -> optax.GradientTransformation:
    """Weight decay alone would move s from -12 to where sigmoid(s) prunes the plan's fraction.

    That is of the initial weights (it cannot pass 1/2); its gradient does the rest.
    """
    end = setup.steps * 3 // 4
    magnitudes = np.abs(np.concatenate(_planned(setup.params, setup.plan)))
    threshold = min(0.4, float(np.quantile(magnitudes, setup.plan.sparsity)))
    goal = np.log(threshold / (1.0 - threshold))
    decay = np.log(STR_START / goal) / (STR_RATE * end)
    rate = optax.piecewise_constant_schedule(STR_RATE, {end: 0.0})
    thresholds = optax.chain(optax.add_decayed_weights(float(decay)), optax.sgd(rate))
    method = sj.soft.str_(initial=STR_START, **cut)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, learned_tx=thresholds)


def movement(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Movement pruning (hard), each layer to its own target."""
    begin, end, _ = ramp(setup)
    scores = optax.adam(SCORES_RATE)
    method = sj.soft.movement(begin, end)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, learned_tx=scores)


@allocates("learned, then cut globally")
def soft_movement(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Movement pruning (soft) for three quarters; from half on it is held to gmp's ramp."""
    return _soft_movement(tx, setup, exact_from=setup.steps // 2, exact_by=ramp(setup)[1])


@allocates("learned")
def soft_movement_uncut(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """Movement pruning (soft) for three quarters: how sparse it is then is what it came to."""
    return _soft_movement(tx, setup)


def _soft_movement(
    tx: optax.GradientTransformation, setup: Setup, **cut: int
) -> optax.GradientTransformation:
    """Scores rest from three quarters on: else they prune on to the last step.

    The penalty is scaled to the scores' gradients on a batch at the start, and the scores can
    travel twice the way to the threshold while it rises.
    """
    begin, end, _ = ramp(setup)
    grads = jax.jit(jax.grad(setup.loss))(setup.params, setup.batches(1)[0])
    pairs = zip(_planned(setup.params, setup.plan), _planned(grads, setup.plan), strict=True)
    pull = sum(float(np.abs(weights * grad).sum()) for weights, grad in pairs)
    method = sj.soft.soft_movement(begin, end, penalty=MOVEMENT_PENALTY * pull, **cut)
    rate = optax.piecewise_constant_schedule(4.4 / (end - begin), {end: 0.0})
    scores = optax.adam(rate)
    return sj.sparsify(tx, method, setup.plan, key=setup.key, learned_tx=scores)


@version(2)  # before, as sr_ste_in_the_gradient
def sr_ste(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SR-STE, sparse from the first step on; under Adam its decay comes after it."""
    if setup.optimizer.momentum is not None:
        return sr_ste_in_the_gradient(tx, setup)
    method = sj.soft.sr_ste(decay=SR_STE_DECAY, rate=setup.optimizer.schedule)
    return sj.sparsify(tx, method, setup.plan, key=setup.key)


def sr_ste_in_the_gradient(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """SR-STE with its decay in the gradient, as the paper has it; Adam divides it by its size."""
    return sj.sparsify(tx, sj.soft.sr_ste(), setup.plan, key=setup.key)


def straight_through(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """SR-STE without its decay of pruned weights: the plain straight-through estimator."""
    return sj.sparsify(tx, sj.soft.sr_ste(decay=0.0), setup.plan, key=setup.key)


@version(2)  # before, what it does not reach moved by momentum and weight decay
def top_kast(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Top-KAST with masks chosen anew at 1 % of the steps; its own decay in place of the common."""
    method = sj.soft.top_kast(every=max(1, setup.steps // 100))
    tx = setup.optimizer._replace(weight_decay=0.0).transform()
    return sj.sparsify(tx, method, setup.plan, key=setup.key)


@allocates("global")
def ac_dc(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """AC/DC: dense while the rate rises, then phases of 5 %, sparse for good from 85 %."""
    begin, end, phase = (max(1, setup.steps * share // 100) for share in (20, 85, 5))
    return sj.sparsify(tx, sj.pruning.ac_dc(begin, end, phase=phase), setup.plan, key=setup.key)


def spartan(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Spartan, each layer to its own target."""
    return sj.sparsify(tx, sj.soft.spartan(setup.steps), setup.plan, key=setup.key)


def _planned(params: Any, plan: sj.Plan) -> list[np.ndarray]:
    """The planned leaves, flat."""
    leaves = dict(sj.tree.leaves_with_paths(params))
    return [np.asarray(leaves[leaf.path]).ravel() for leaf in plan.leaves]
