"""Recipes of range penalties in a dense training, and of quantizers after it."""

import optax

import sparsejax as sj
from experiments.recipes import Setup


def with_linf(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """A dense training with R2's penalty on max|w|."""
    return _penalised(tx, setup, sj.linf(), 0.01)


def with_margin(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """A dense training with R2's margin penalty."""
    return _penalised(tx, setup, sj.margin(), 0.01)


def with_soft_min_max(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """A dense training with R2's soft range."""
    return _penalised(tx, setup, sj.soft_min_max(), 0.01)


def with_kure(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """A dense training with the kurtosis penalty, the baseline of R2."""
    return _penalised(tx, setup, sj.penalties.kure(), 0.01)


def symmetric_2_bits(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """Three levels around zero, the outer ones at max|w|."""
    return _quantized(tx, setup, sj.quantizers.symmetric_quantizer(2))


def asymmetric_2_bits(
    tx: optax.GradientTransformation, setup: Setup
) -> optax.GradientTransformation:
    """Four levels from the lowest weight to the highest."""
    return _quantized(tx, setup, sj.quantizers.asymmetric_quantizer(2))


def dorefa_2_bits(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """DoReFa weights, as PACT trains them."""
    return _quantized(tx, setup, sj.quantizers.dorefa(2))


def lsq_2_bits(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """LSQ."""
    return _quantized(tx, setup, sj.quantizers.lsq(2))


def ewgs_2_bits(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """EWGS."""
    return _quantized(tx, setup, sj.quantizers.ewgs(2))


def dkm_1_bit(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """DKM with two centroids a layer; k-means goes on from step to step."""
    return _quantized(tx, setup, sj.quantizers.dkm(1, num_iterations=1))


def dkm_2_bits(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """DKM with four centroids a layer; k-means goes on from step to step."""
    return _quantized(tx, setup, sj.quantizers.dkm(2, num_iterations=1))


def _penalised(
    tx: optax.GradientTransformation, setup: Setup, penalty: sj.penalties.Penalty, weight: float
) -> optax.GradientTransformation:
    """On the leaves that are quantized later."""
    planned = lambda path: setup.plan.get(path) is not None
    return optax.chain(sj.add_penalty(penalty, weight, where=planned), tx)


def _quantized(
    tx: optax.GradientTransformation, setup: Setup, quantizer: sj.soft.Reparam
) -> optax.GradientTransformation:
    """No pruning; step sizes and intervals by Adam without weight decay, slower than weights."""
    return sj.sparsify(
        tx,
        sj.chain(),
        setup.plan,
        key=setup.key,
        reparam=quantizer,
        learned_tx=optax.adam(1e-4),
    )
