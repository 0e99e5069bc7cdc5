"""Recipes of block-based column-row pruning: gradual, by ADMM, by a reweighted group lasso."""

import optax

import sparsejax as sj
from experiments.recipes import Setup, version


@version(2)  # before, clipping and Adam divided the pull by its size
def bcr_admm(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Draw the weights to the pattern for 60 % of the steps, prune, train on with the masks.

    rho stands beside the optimizer's own step, of about 1; from 1 to 100 it doubles at each of ten
    projections, and after the last of them weights arrive within their steps.
    """
    cut = setup.steps * 3 // 5
    onto = sj.structured.onto_patterns(setup.plan)
    pull = sj.structured.admm(onto, every=max(1, cut // 10), rho=1.0, max_rho=100.0, end=cut)
    drawn = setup.optimizer.transform(pull)
    return sj.sparsify(drawn, sj.one_shot(cut), setup.plan, key=setup.key)


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
