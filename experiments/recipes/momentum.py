"""Dense recipes of plain SGD, in place of the common AdamW: a large and a small learning rate."""

import optax

from experiments.recipes import Setup


def sgd_large(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """SGD with momentum at a learning rate of 0.1, a tenth of it after 50 and 75 % of the steps."""
    return _sgd(setup, 0.1)


def sgd_small(tx: optax.GradientTransformation, setup: Setup) -> optax.GradientTransformation:
    """The same at 0.01."""
    return _sgd(setup, 0.01)


def _sgd(setup: Setup, learning_rate: float) -> optax.GradientTransformation:
    drops = {setup.steps // 2: 0.1, setup.steps * 3 // 4: 0.1}
    schedule = optax.piecewise_constant_schedule(learning_rate, drops)
    return optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(schedule, momentum=0.9))
