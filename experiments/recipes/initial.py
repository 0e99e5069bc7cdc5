"""Recipes of pruning at initialisation: SNIP, GraSP and SynFlow; the masks then stay."""

import jax.numpy as jnp
import optax

import sparsejax as sj
from experiments.recipes import Setup
from sparsejax.initial_masks import InitialMasks

SYNFLOW_INPUT = 1e-6  # float32 would overflow from ones, 28 layers deep


def snip(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SNIP on two batches, 128 examples as in the paper."""
    return _fixed(tx, setup, sj.snip(setup.loss, setup.batches(2)))


def grasp(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """GraSP on two batches: about ten examples of each class, as in the paper."""
    return _fixed(tx, setup, sj.grasp(setup.loss, setup.batches(2)))


def synflow(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SynFlow in 100 rounds, without data."""
    ((images, _),) = setup.batches(1)
    x = jnp.full_like(images[:1], SYNFLOW_INPUT)
    return _fixed(tx, setup, sj.synflow(setup.apply, x))


def _fixed(
    tx: optax.GradientTransformation, setup: Setup, initial: InitialMasks
) -> optax.GradientTransformation:
    """The optimizer with masks that stay."""
    return sj.sparsify(tx, sj.chain(), setup.plan, key=setup.key, initial_masks=initial)
