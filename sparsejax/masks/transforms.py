"""The algebra of mask transforms: masks flow through them as updates flow through optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from sparsejax.doors import SCHEDULE, SCORE, Need, checked
from sparsejax.patterns import Unstructured
from sparsejax.plans.leaf import PlanLeaf
from sparsejax.plans.plan import Plan
from sparsejax.plans.planned_leaves import map_planned
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


@checked(score=SCORE)
def start(score: Score) -> MaskTransform:
    """Prunes to the plan's target before the first step, lowest scores first.

    There are no gradients yet: `score` is called with None for them.
    """

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        def cut(leaf: PlanLeaf, mask: Any, weights: Any, key: Any) -> Any:
            scores = score(weights, None, key)
            return leaf.pattern.mask(scores, leaf.sparsity, allowed=mask) & mask

        return map_planned(cut, context, masks, params), ()

    return MaskTransform(init, lambda masks, state, params, grads, context: (masks, state))


@checked(score=SCORE, ramp=SCHEDULE)
def prune(score: Score, ramp: Schedule, *, regrow: bool = False) -> MaskTransform:
    """Prunes each leaf to `ramp(step)` times its target, lowest scores first.

    Args:
      score: `f(weights, grads, key) -> scores`, the highest are kept.
      ramp: step -> 0..1.
      regrow: whether a pruned weight may come back. Pruned weights are zero unless a Reparam keeps
        them, so that by magnitude only a Reparam makes use of it.
    """

    def cut(leaf: PlanLeaf, mask: Any, scores: Any, reached: Any) -> Any:
        if regrow:
            return leaf.pattern.mask(scores, reached * leaf.sparsity)
        return leaf.pattern.mask(scores, reached * leaf.sparsity, allowed=mask) & mask

    return _by_score(score, ramp, cut)


@checked(score=SCORE, fraction=SCHEDULE)
def drop(score: Score, fraction: Schedule) -> MaskTransform:
    """Prunes `fraction(step)` of what each leaf still keeps, lowest scores first.

    The number of dropped groups is floor(fraction * kept + 0.5). N:M leaves drop single weights.
    """

    def cut(leaf: PlanLeaf, mask: Any, scores: Any, share: Any) -> Any:
        num_kept = _num_kept(leaf, mask)
        dropped = jnp.asarray(share, jnp.float32) * num_kept.astype(jnp.float32)
        num_left = num_kept - jnp.floor(dropped + 0.5).astype(jnp.int32)
        return _single(leaf).mask(scores, _sparsity(leaf, num_left), allowed=mask) & mask

    return _by_score(score, fraction, cut)


@checked(score=SCORE)
def grow(score: Score) -> MaskTransform:
    """Regrows each leaf to the number it kept at init, highest scores first.

    What is kept stays; the count is remembered as state, so that it never drifts. Above 2**23
    groups the fraction that stands for the count is rounded to float32: off by at most 2.
    """

    def init(masks: Any, params: Any, context: MaskContext) -> tuple[Any, Any]:
        counts = map_planned(lambda leaf, mask, key: _num_kept(leaf, mask), context, masks)
        return masks, counts

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        def add(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, count: Any, key: Any) -> Any:
            return _resized(leaf, mask, score(weights, grad, key), count)

        return map_planned(add, context, masks, params, grads, state), state

    return MaskTransform(init, update)


@checked(score=SCORE, size=SCHEDULE)
def resize(score: Score, size: Schedule) -> MaskTransform:
    """Prunes or regrows each leaf to `size(step)` times what its target keeps, best scores first.

    Whatever the scores, what is kept ranks before what is pruned: below the present size some of
    the kept weights go, above it all of them stay. The number of kept groups is
    floor(size * kept at the target + 0.5).
    """

    def cut(leaf: PlanLeaf, mask: Any, scores: Any, reached: Any) -> Any:
        num_groups = leaf.pattern.num_groups(leaf.shape)
        target = num_groups - leaf.num_pruned // leaf.group_size
        count = jnp.floor(jnp.asarray(reached, jnp.float32) * target + 0.5).astype(jnp.int32)
        return _resized(leaf, mask, scores, jnp.minimum(count, num_groups))

    return _by_score(score, size, cut)


def _by_score(score: Score, schedule: Schedule, cut: Callable[..., Any]) -> MaskTransform:
    """Each leaf's mask is `cut(leaf, mask, scores, schedule(step))`; there is no state."""

    def update(
        masks: Any, state: Any, params: Any, grads: Any, context: MaskContext
    ) -> tuple[Any, Any]:
        now = schedule(context.step)

        def own(leaf: PlanLeaf, mask: Any, weights: Any, grad: Any, key: Any) -> Any:
            return cut(leaf, mask, score(weights, grad, key), now)

        return map_planned(own, context, masks, params, grads), state

    return MaskTransform(lambda masks, params, context: (masks, ()), update)


def _single(leaf: PlanLeaf) -> Any:
    """The pattern by which single groups go: an N:M leaf stays N:M whatever weight it loses."""
    return leaf.pattern if leaf.pattern.max_sparsity(leaf.shape) == 1.0 else Unstructured()


def _resized(leaf: PlanLeaf, mask: Any, scores: Any, num_kept: Int[Array, ""]) -> Any:
    """The mask with so many groups; those that it keeps already rank first."""
    sparsity = _sparsity(leaf, num_kept)
    resized = leaf.pattern.mask(scores, sparsity, keep=mask)
    if _single(leaf) is leaf.pattern:
        return resized
    # The pattern's own highest sparsity may keep more than the count.
    return _single(leaf).mask(scores, sparsity, keep=mask & resized, allowed=resized)


def _num_kept(leaf: PlanLeaf, mask: Bool[Array, "..."]) -> Int[Array, ""]:
    """How many groups the mask keeps."""
    return jnp.sum(mask, dtype=jnp.int32) // leaf.group_size


def _sparsity(leaf: PlanLeaf, num_kept: Int[Array, ""]) -> Any:
    num_groups = leaf.pattern.num_groups(leaf.shape)
    return (num_groups - num_kept).astype(jnp.float32) / num_groups
