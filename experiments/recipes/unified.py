"""Recipes of micro-structured unification, after a dense training."""

import optax

import sparsejax as sj
from experiments.recipes import Setup, version
from sparsejax.algorithms.structured.admm import Projection

SHARE = 0.8  # unified blocks / kept blocks
RHO = (
    10.0  # beside an optimizer's step of about 1; doubled five times, the pull ends as the stronger
)


@version(2)  # before, clipping and Adam divided the pull by its size
def unified_by_admm(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """ADMM onto pruned and unified blocks for a quarter of the steps, then both held fast."""
    cut = max(1, setup.steps // 4)
    admm = _drawn(sj.structured.onto_unified(setup.plan, fraction=SHARE), cut)
    return _tied(setup.optimizer.transform(admm), setup, cut)


def unified_at_once(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """The same projection once, at the start, and all steps with both held fast."""
    return _tied(tx, setup, 1)


@version(2)  # as unified_by_admm
def pruned_by_admm(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """ADMM onto pruned blocks only, then masks."""
    cut = max(1, setup.steps // 4)
    admm = _drawn(sj.structured.onto_patterns(setup.plan), cut)
    drawn = setup.optimizer.transform(admm)
    return sj.sparsify(drawn, sj.one_shot(cut), setup.plan, key=setup.key)


def pruned_at_once(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """Blocks of the least magnitude pruned at the start, then masks."""
    return sj.sparsify(tx, sj.one_shot(1), setup.plan, key=setup.key)


def _drawn(projection: Projection, end: int) -> optax.GradientTransformation:
    """Five projections on the way."""
    every = max(1, end // 5)
    return sj.structured.admm(projection, every=every, rho=RHO, max_rho=32 * RHO, end=end)


def _tied(tx: optax.GradientTransformation, setup: Setup, at: int) -> optax.GradientTransformation:
    return sj.sparsify(
        tx,
        sj.one_shot(at),
        setup.plan,
        key=setup.key,
        reparam=sj.structured.tied_blocks(SHARE, at=at),
        learned_tx=optax.set_to_zero(),
    )
