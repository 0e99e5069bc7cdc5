"""Recipes: a method with its settings for a training of given length, one family a file.

A recipe is a function at the top of a module, `recipe(tx, setup) -> optax transform`: `tx` is the
dense optimizer and `setup` has everything a method may want to know. It chooses the method's
schedule from `setup.steps` and returns `sj.sparsify(tx, sj.some_method(...), setup.plan,
key=setup.key)`, or `tx` with more around or inside it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, PRNGKeyArray

import sparsejax as sj

Batch = tuple[Array, Array]


class Setup(NamedTuple):
    """What a recipe may look at.

    Args:
        plan: which leaves become how sparse.
        steps: of the whole training.
        steps_per_epoch: of the training set.
        params: the initial weights.
        loss: `loss(params, batch) -> scalar`, with the statistics of the batch in batch norm.
        apply: `apply(params, images) -> logits` in inference mode.
        batches: `batches(count) -> [(images, labels), ...]`, training batches of a fixed order.
        key: for methods that draw.
    """

    plan: sj.Plan
    steps: int
    steps_per_epoch: int
    params: Any
    loss: Callable[[Any, Batch], Array]
    apply: Callable[[Any, Array], Array]
    batches: Callable[[int], list[Batch]]
    key: PRNGKeyArray


Recipe = Callable[[optax.GradientTransformation, Setup], optax.GradientTransformation]


def ramp(setup: Setup) -> tuple[int, int, int]:
    """Begin, end and interval of a gradual schedule: from 20 to 75 % of the steps, 1 % apart.

    The last quarter trains at the final sparsity, while the learning rate falls to zero.
    """
    return setup.steps // 5, setup.steps * 3 // 4, max(1, setup.steps // 100)
