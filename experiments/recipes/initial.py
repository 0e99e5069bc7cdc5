"""Recipes of pruning at initialisation: SNIP, GraSP and SynFlow; the masks then stay."""

from functools import partial

import jax.numpy as jnp
import optax

import sparsejax as sj
from experiments.recipes import Recipe, Setup, allocates, version
from sparsejax.masks.initial import InitialMasks

GRASP_TEMPERATURE = 200.0
SYNFLOW_INPUT = 1e-16  # ones would fill the ReLU6 of 28 layers: no flow, no scores


def fixed_masks(initial: InitialMasks) -> Recipe:
    """A training with masks that stay."""

    def recipe(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
        return sj.sparsify(tx, sj.chain(), setup.plan, key=setup.key, initial_masks=initial)

    return recipe


@allocates("global")
def snip(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SNIP on two batches, 128 examples as in the paper."""
    return fixed_masks(sj.before.snip(setup.loss, setup.batches(2)))(tx, setup)


@allocates("global")
@version(2)  # before, as grasp_at_temperature_1
def grasp(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """GraSP on two batches, about ten examples of each class, at a temperature of 200, as there."""
    loss = partial(setup.loss, temperature=GRASP_TEMPERATURE)
    return fixed_masks(sj.before.grasp(loss, setup.batches(2)))(tx, setup)


@allocates("global")
def grasp_at_temperature_1(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """GraSP without the paper's temperature."""
    return fixed_masks(sj.before.grasp(setup.loss, setup.batches(2)))(tx, setup)


@allocates("global")
def synflow(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SynFlow in 100 rounds, without data."""
    ((images, _),) = setup.batches(1)
    x = jnp.full_like(images[:1], SYNFLOW_INPUT)
    return fixed_masks(sj.before.synflow(setup.apply, x))(tx, setup)
