"""Recipes of block-based column-row pruning: gradual, by ADMM, by a reweighted group lasso."""

import optax

import sparsejax as sj
from experiments.recipes import Setup


def bcr_admm(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Draw the weights to the pattern for 60 % of the steps, prune, train on with the masks."""
    cut = setup.steps * 3 // 5
    pull = sj.structured.admm(
        sj.structured.onto_patterns(setup.plan), every=max(1, cut // 10), rho=1e-2, end=cut
    )
    return sj.sparsify(optax.chain(pull, tx), sj.one_shot(cut), setup.plan, key=setup.key)


def bcr_reweighted(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Push weak groups towards zero for 60 % of the steps, prune, train on with the masks."""
    cut = setup.steps * 3 // 5
    push = sj.structured.reweighted(setup.plan, 1e-4, every=max(1, cut // 10), end=cut)
    return sj.sparsify(optax.chain(push, tx), sj.one_shot(cut), setup.plan, key=setup.key)


def one_shot_half_way(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """Train dense for half of the steps, prune by magnitude, train on with the masks."""
    return sj.sparsify(tx, sj.one_shot(setup.steps // 2), setup.plan, key=setup.key)
