"""The algebra of mask transforms: masks flow through them as updates flow through optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Int

from sparsejax.doors import Need, checked
from sparsejax.plans.plan import Plan
from sparsejax.reparams.reparam import Reparam

Score = Callable[[Any, Any, Any], Any]
Schedule = Callable[[Any], Any]


class MaskContext(NamedTuple):
    """What a mask transform may look at besides its operands: a static Plan, the rest traced.

    `learned` is what a Reparam trains beside the weights, such as the scores of movement pruning.
    """

    plan: Plan
    step: Int[Array, ""]
    key: Any  # a PRNGKeyArray, traced; None for a Reparam
    learned: Any = ()


class MaskTransform(NamedTuple):
    """A pair of functions that make and change masks, as an optax transform does updates.

    `init(masks, params, context) -> (masks, state)` and
    `update(masks, state, params, grads, context) -> (masks, state)`. Masks are True where a weight
    is kept; dense leaves hold a MaskedNode. `grads` are the raw, dense gradients.
    """

    init: Callable[[Any, Any, MaskContext], tuple[Any, Any]]
    update: Callable[[Any, Any, Any, Any, MaskContext], tuple[Any, Any]]


class Method(NamedTuple):
    """A mask transform and the Reparam that belongs to it: one method of soft masks."""

    transform: MaskTransform
    reparam: Reparam


TRANSFORM = Need(
    "a mask transform",
    lambda thing: isinstance(thing, MaskTransform),
    "pass sj.prune(...) or sj.gmp(...), say",
)
METHOD = Need(
    "a method",
    lambda thing: isinstance(thing, MaskTransform | Method),
    "pass sj.gmp(...) or sj.rigl(...), say",
)
OPTIMIZER = Need(
    "an optax transform",
    lambda thing: hasattr(thing, "init") and hasattr(thing, "update") and not METHOD.fits(thing),
    "pass optax.adamw(1e-3), say",
)


@checked(transforms=TRANSFORM)
def chain(*transforms: MaskTransform) -> MaskTransform:
    """The transforms one after the other, each with its own key."""

    def own(context: MaskContext, index: int) -> MaskContext:
        return context._replace(key=jax.random.fold_in(context.key, index))

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        states = []
        for index, transform in enumerate(transforms):
            masks, state = transform.init(masks, params, own(context, index))
            states.append(state)
        return masks, tuple(states)

    def update(
        masks: Any, states: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        new_states = []
        for index, (transform, state) in enumerate(zip(transforms, states, strict=True)):
            masks, state = transform.update(masks, state, params, grads, own(context, index))
            new_states.append(state)
        return masks, tuple(new_states)

    return MaskTransform(init, update)


@checked(transform=TRANSFORM)
def every(
    num_steps: int, transform: MaskTransform, *, begin: int = 0, end: int | None = None
) -> MaskTransform:
    """The transform at steps begin, begin + num_steps, ... and at `end`, the last one.

    The steps between cost one predicate: the update sits under `lax.cond`, in one compilation.

    Args:
      num_steps: steps from one update of the masks to the next.
      transform: what then changes the masks.
      begin: the first of these steps.
      end: the last one, a multiple of num_steps after begin or not; None for no end.

    Raises:
      ValueError: num_steps < 1, begin < 0 or end < begin.
    """
    if num_steps < 1 or begin < 0 or (end is not None and end < begin):
        raise ValueError(
            "every needs num_steps >= 1 and 0 <= begin <= end, "
            f"got num_steps={num_steps}, begin={begin}, end={end}."
        )

    def due(step: Int[Array, ""]) -> Bool[Array, ""]:
        periodic = (step >= begin) & ((step - begin) % num_steps == 0)
        return periodic if end is None else (periodic & (step <= end)) | (step == end)

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        return jax.lax.cond(
            due(context.step),
            lambda: transform.update(masks, state, params, grads, context),
            lambda: (masks, state),
        )

    return MaskTransform(transform.init, update)
