"""Recipes: a method with its settings for a training of given length, one family a file.

A recipe is a function at the top of a module, `recipe(tx, setup) -> optax transform`: `tx` is the
dense optimizer and `setup` has everything a method may want to know. It chooses the method's
schedule from `setup.steps` and returns `sj.sparsify(tx, sj.some_method(...), setup.plan,
key=setup.key)`, or `tx` with more around or inside it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import optax
from jaxtyping import Array, PRNGKeyArray

import sparsejax as sj

Batch = tuple[Array, Array]
F = TypeVar("F", bound=Callable[..., Any])


def version(number: int) -> Callable[[F], F]:
    """A decorator for a recipe that means something else than its records of before.

    Records go by the recipe's name and its version, so that none of the old recipe is shown as one
    of the new.
    """

    def mark(recipe: F) -> F:
        recipe.version = number  # type: ignore[attr-defined]
        return recipe

    return mark


def allocates(how: str) -> Callable[[F], F]:
    """A decorator for a recipe that spreads the sparsity over the layers itself."""

    def mark(recipe: F) -> F:
        recipe.allocation = how  # type: ignore[attr-defined]
        return recipe

    return mark


class Loss(Protocol):
    """The mean cross entropy of a batch; the logits are divided by the temperature."""

    def __call__(self, params: Any, batch: Batch, *, temperature: float = 1.0) -> Array:
        """A scalar."""


class DenseOptimizer(NamedTuple):
    """The parts of the dense optimizer, for recipes that need another part or one in between.

    Args:
        schedule: of the learning rate.
        weight_decay: decoupled under Adam, L2 under SGD.
        clip_norm: longer gradients, of all leaves together, are scaled down to this.
        momentum: Nesterov's, of SGD; None for AdamW.
    """

    schedule: optax.Schedule
    weight_decay: float
    clip_norm: float = float("inf")
    momentum: float | None = None

    def transform(
        self, pull: optax.GradientTransformation | None = None
    ) -> optax.GradientTransformation:
        """The optimizer; what `pull` adds is multiplied by the learning rate and by nothing else.

        It comes after Adam has divided gradients by their size, as AdamW's decay does; SGD does
        nothing to gradients that momentum would not do to a term of the loss.
        """
        clip, pull = optax.clip_by_global_norm(self.clip_norm), pull or optax.identity()
        decay = optax.add_decayed_weights(self.weight_decay)
        if self.momentum is None:
            parts = (clip, optax.scale_by_adam(), decay, pull)
        else:
            parts = (clip, decay, pull, optax.trace(self.momentum, nesterov=True))
        return optax.chain(*parts, optax.scale_by_learning_rate(self.schedule))


class Setup(NamedTuple):
    """What a recipe may look at.

    Args:
        plan: which leaves become how sparse.
        steps: of the whole training.
        steps_per_epoch: of the training set.
        params: the initial weights.
        optimizer: the parts that the dense optimizer was made of.
        loss: `loss(params, batch) -> scalar`, with the statistics of the batch in batch norm.
        apply: `apply(params, images) -> logits` in inference mode.
        batches: `batches(count) -> [(images, labels), ...]`, training batches of a fixed order.
        key: for methods that draw.
    """

    plan: sj.Plan
    steps: int
    steps_per_epoch: int
    params: Any
    optimizer: DenseOptimizer
    loss: Loss
    apply: Callable[[Any, Array], Array]
    batches: Callable[[int], list[Batch]]
    key: PRNGKeyArray


Recipe = Callable[[optax.GradientTransformation, Setup], optax.GradientTransformation]


def ramp(setup: Setup) -> tuple[int, int, int]:
    """Begin, end and interval of a gradual schedule: from 20 to 75 % of the steps, 1 % apart.

    The last quarter trains at the final sparsity, while the learning rate falls to zero.
    """
    return setup.steps // 5, setup.steps * 3 // 4, max(1, setup.steps // 100)
