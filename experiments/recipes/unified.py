"""Recipes of micro-structured unification, after a dense training."""

import optax

import sparsejax as sj
from experiments.recipes import Setup

SHARE = 0.8  # unified blocks / kept blocks


def unified_by_admm(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """ADMM onto pruned and unified blocks for half of the steps, then both held fast."""
    half = max(1, setup.steps // 2)
    project = sj.onto_unified(setup.plan, share=SHARE)
    admm = sj.admm(project, every=max(1, setup.steps // 20), rho=1e-3, end=half)
    return _tied(optax.chain(admm, tx), setup, half)


def unified_at_once(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """The same projection once, at the start, and all steps with both held fast."""
    return _tied(tx, setup, 1)


def pruned_by_admm(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """ADMM onto pruned blocks only, then masks."""
    half = max(1, setup.steps // 2)
    admm = sj.admm(sj.onto_patterns(setup.plan), every=max(1, setup.steps // 20), end=half)
    return sj.sparsify(optax.chain(admm, tx), sj.one_shot(half), setup.plan, key=setup.key)


def pruned_at_once(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Blocks of the least magnitude pruned at the start, then masks."""
    return sj.sparsify(tx, sj.one_shot(1), setup.plan, key=setup.key)


def _tied(tx: optax.GradientTransformation, setup: Setup, at: int) -> optax.GradientTransformation:
    return sj.sparsify(
        tx,
        sj.one_shot(at),
        setup.plan,
        key=setup.key,
        reparam=sj.tied_blocks(SHARE, at=at),
        learned_tx=optax.set_to_zero(),
    )
