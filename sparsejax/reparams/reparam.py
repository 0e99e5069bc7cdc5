"""Forward reparametrisations: what a forward pass uses in place of the raw weights."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sparsejax.doors import Need, checked
from sparsejax.patterns.stacked import map_slices
from sparsejax.tree import is_masked_node, map_with_paths

Factory = TypeVar("Factory", bound=Callable[..., Any])


class Reparam(NamedTuple):
    """Functions that make the forward weights out of raw weights, masks and learned numbers.

    `init(params, context) -> learned` gives what is trained beside the weights: a tree like
    the params with a float array per leaf (a MaskedNode where it is dense), a tuple of such trees,
    or ().
    `apply(params, masks, learned, context) -> weights` is the forward pass; its derivative decides
    how gradients reach params and learned. `masks` holds a MaskedNode where a leaf is dense.

    `harden` has apply's arguments and gives the weights to deploy; None means apply. Either is
    followed by exact zeros where the masks prune. `refresh(params, masks, learned, context) ->
    learned` follows each step of the optimizer; without `trains` it alone changes `learned`, which
    no gradient reaches. With `keeps_pruned` the raw weights stay dense
    underneath, so that a pruned one keeps its value and may come back; else they are held at 0.
    `needs_decay` says that at first no gradient moves what is learned, but weight decay does.

    Two more for raw weights that stay dense: `moving(params, masks, learned, context) -> masks`
    says which of them the optimizer may move, the others rest with their moments;
    `drift(params, masks, learned, context)` is added to the optimizer's updates.

    `context` is the MaskContext with plan and step; its key and learned are None here.
    """

    init: Callable[[Any, Any], Any]
    apply: Callable[[Any, Any, Any, Any], Any]
    harden: Callable[[Any, Any, Any, Any], Any] | None = None
    refresh: Callable[[Any, Any, Any, Any], Any] | None = None
    keeps_pruned: bool = False
    trains: bool = True
    needs_decay: bool = False
    moving: Callable[[Any, Any, Any, Any], Any] | None = None
    drift: Callable[[Any, Any, Any, Any], Any] | None = None


REPARAM = Need(
    "a Reparam",
    lambda thing: isinstance(thing, Reparam),
    "pass sj.soft.straight_through() or sj.quantizers.symmetric_quantizer(8), say",
)


def memoized(factory: Factory) -> Factory:
    """The factory with one result for equal arguments, which must be hashable.

    A Reparam is static in an optimizer state: the states of two equal transforms have equal tree
    structures only if their Reparams are one object.
    """
    signature = inspect.signature(factory)
    cached = functools.cache(factory)

    @functools.wraps(factory)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return cached(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def nothing_learned(params: Any, context: Any) -> tuple[()]:
    """The `init` of a Reparam without learned numbers."""
    return ()


def map_weights(f: Callable[..., Any], context: Any, params: Any, masks: Any, *rest: Any) -> Any:
    """The tree of `f(plan leaf, weights, mask, *others)`; dense leaves stay as they are."""

    def at(path: str, weights: Any, mask: Any, *others: Any) -> Any:
        if is_masked_node(weights) or is_masked_node(mask):
            return weights
        return map_slices(f, context.plan.slices(path), weights, mask, *others)

    return map_with_paths(at, params, masks, *rest)


def map_masked(f: Callable[..., Any], context: Any, params: Any, masks: Any) -> Any:
    """The tree of `f(plan leaf, weights, mask)`, with a MaskedNode where a leaf is dense."""

    def at(path: str, mask: Any, weights: Any) -> Any:
        if is_masked_node(weights) or is_masked_node(mask):
            return mask
        return map_slices(f, context.plan.slices(path), weights, mask)

    return map_with_paths(at, masks, params)


@memoized
@checked(first=REPARAM, second=REPARAM)
def chain_reparams(first: Reparam, second: Reparam) -> Reparam:
    """The second Reparam on the weights of the first, such as a quantizer on soft masks.

    `learned` is the pair of theirs. If one of them trains, the optimizer's weight decay reaches
    what the other learns, too: `refresh` must put up with that. The second must leave it to the
    first which raw weights move.

    Raises:
      ValueError: it does not.
    """
    if second.moving or second.drift:
        raise ValueError(
            "chain_reparams needs the Reparam that says which raw weights move as its first, got "
            "one as its second; exchange them."
        )

    def apply(params: Any, masks: Any, learned: Any, context: Any) -> Any:
        weights = first.apply(params, masks, learned[0], context)
        return second.apply(weights, masks, learned[1], context)

    def harden(params: Any, masks: Any, learned: Any, context: Any) -> Any:
        weights = (first.harden or first.apply)(params, masks, learned[0], context)
        return (second.harden or second.apply)(weights, masks, learned[1], context)

    def refresh(params: Any, masks: Any, learned: Any, context: Any) -> Any:
        mine, theirs = learned
        weights = params
        if first.refresh is not None:
            mine = first.refresh(params, masks, mine, context)
        if second.refresh is not None:
            weights = first.apply(params, masks, mine, context)
            theirs = second.refresh(weights, masks, theirs, context)
        return mine, theirs

    return Reparam(
        lambda params, context: (first.init(params, context), second.init(params, context)),
        apply,
        harden,
        refresh,
        first.keeps_pruned or second.keeps_pruned,
        first.trains or second.trains,
        first.needs_decay or second.needs_decay,
        _of_first(first.moving),
        _of_first(first.drift),
    )


def _of_first(f: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A function of what the first of a chain learns as one of what both do."""
    if f is None:
        return None
    return lambda params, masks, learned, context: f(params, masks, learned[0], context)


@memoized
def straight_through() -> Reparam:
    """The straight-through estimator: forward `w * mask`, backward as if there were no mask.

    d loss / d w is taken to be d loss / d (w * mask), for kept and pruned weights alike.

    The loss needs one more line: compute it at `forward(params, opt_state)`.

    Example:
      >>> method = sj.gmp(begin=0, end=1_000, every=1, regrow=True)
      >>> tx = sj.sparsify(tx, method, plan, key=key, reparam=sj.soft.straight_through())
      >>> loss = lambda params: model_loss(sj.forward(params, opt_state))

    Reference: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic
    Neurons", 2013, arXiv 1308.3432; on masks: Jayakumar et al., "Top-KAST", NeurIPS 2020,
    arXiv 2106.03517, section 2.
    """
    return Reparam(nothing_learned, _apply_straight_through, keeps_pruned=True)


def _apply_straight_through(params: Any, masks: Any, learned: Any, context: Any) -> Any:
    def masked(leaf: Any, weights: Any, mask: Any) -> Any:
        return in_place_of(weights, jnp.where(mask, weights, jnp.zeros((), weights.dtype)))

    return map_weights(masked, context, params, masks)


@jax.custom_jvp
def in_place_of(source: Float[Array, "..."], value: Float[Array, "..."]) -> Float[Array, "..."]:
    """The value, with the gradient of the source: straight through."""
    return value


@in_place_of.defjvp
def _in_place_of_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return primals[1], tangents[0]
