"""The bridge to optax: an optimizer whose pruned weights are exactly zero."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from sparsejax.doors import INITIAL_MASKS, PLAN, checked
from sparsejax.flax_bridge import unboxed
from sparsejax.masks.initial import InitialMasks, full_masks
from sparsejax.masks.mask_checks import check_params, check_state
from sparsejax.masks.transforms import METHOD, OPTIMIZER, MaskContext, MaskTransform, Method
from sparsejax.plans.plan import Plan
from sparsejax.reparams.reparam import REPARAM, Reparam, chain_reparams
from sparsejax.training.asked import Watch, uses_forward
from sparsejax.training.masked_step import masked_step
from sparsejax.training.opt_states import SparsifyState
from sparsejax.training.reparam_state import ReparamState, ReparamTrainer
from sparsejax.training.second_moments import (
    SECOND_MOMENTS,
    SecondMoments,
    moment_rule,
    zeroed_moments,
)
from sparsejax.tree import followed, trained

_ANEW = "call tx.init(params), with initial_masks=masks_from_zeros to keep their zeros"


@checked(
    tx=OPTIMIZER,
    method=METHOD,
    plan=PLAN,
    learned_tx=OPTIMIZER,
    initial_masks=INITIAL_MASKS,
    reparam=REPARAM,
    second_moments=SECOND_MOMENTS,
)
def sparsify(
    tx: optax.GradientTransformation,
    method: MaskTransform | Method,
    plan: Plan,
    *,
    key: PRNGKeyArray,
    reparam: Reparam | None = None,
    learned_tx: optax.GradientTransformation | None = None,
    initial_masks: InitialMasks = full_masks,
    second_moments: SecondMoments = zeroed_moments,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `tx` with masks: an ordinary optax transform that keeps pruned weights at 0.

    Each update first lets the method change the masks, given the raw, dense gradients. `tx` then
    sees gradients, params and its own param-shaped state (moments) with zeros where weights are
    pruned, so that a regrown weight starts with zero moments. Under Adam and its kin such a weight
    then takes several times the steps of the others: `second_moments` says otherwise. The update of
    a pruned weight is exactly -w: the user's unchanged `optax.apply_updates` lands on 0.0 whatever
    momentum or weight decay did. So `sparsify` goes outermost, around the whole chain
    (`optax.MultiSteps` may go around it). A weight that is infinite or NaN when it is pruned
    becomes NaN.

    Args:
      tx: any optax transform.
      method: such as `gmp(...)`, or a Method such as `pdp(...)`, which brings a Reparam.
      plan: names the leaves, their patterns and targets; it must fit the params given to `init`.
      key: a PRNG key for methods that draw.
      reparam: None for hard masks. With a Reparam the loss needs one more line, as it is computed
        at `forward(params, opt_state)`; the gradients given to `update` are those of these weights,
        and `update` pulls them back to the params and to what the Reparam learns. `harden` gives
        the weights to deploy. After a Method's own Reparam this one comes second.
      learned_tx: the optimizer of what the Reparam learns, if it learns by gradients.
      second_moments: what those hold where weights are pruned: zeros, or
        `sj.training.decaying_moments` or `averaged_moments`, or your own function of moments and
        mask. Second moments are what of the optimizer's state is never negative; those of methods
        with dense weights underneath are the optimizer's own.
      initial_masks: `full_masks`, or `masks_from_zeros` to continue from a sparse checkpoint.

    Raises:
      TypeError: key is not a PRNG key.
      ValueError: the plan names a leaf that the params lack or that has another shape there, or
        `update` is called without params or with the state of another plan, or learned_tx is
        missing, or second moments cannot be told from first ones.

    Example:
      >>> tx = sj.sparsify(optax.adamw(1e-3), sj.gmp(500, 5_000, every=100), plan, key=key)
      >>> opt_state = tx.init(params)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)
    """
    key_data, wrap = _key_parts(key)
    method, reparam = _with_reparam(method, reparam)
    inner = optax.with_extra_args_support(tx)
    learned_inner = None if learned_tx is None else optax.with_extra_args_support(learned_tx)
    trainer = None if reparam is None else ReparamTrainer(reparam, plan, learned_inner, Watch())
    change_masks = _mask_changer(method, plan, wrap)
    dense = reparam is not None and reparam.keeps_pruned and reparam.moving is None
    fill = zeroed_moments if dense else second_moments  # of dense weights nothing is pruned

    def init(params: Any) -> SparsifyState:
        _check_no_lookahead(params)
        boxed = trained(params)
        # Masks in variables of NNX would hold a MaskedNode where a leaf is dense.
        params = unboxed(boxed)
        check_params(plan, params)
        step = jnp.zeros((), jnp.int32)
        own = ReparamState(None, plan) if trainer is None else trainer.init(params)
        context = MaskContext(plan, step, wrap(key_data), own.learned)
        # A copy: a step that takes the state's buffers must not take the user's masks.
        masks = jax.tree.map(jnp.copy, initial_masks(params, plan))
        masks, method_state = method.init(masks, params, context)
        if trainer is not None:
            trainer.check(own)
        inner_state = inner.init(boxed)
        _check_no_lookahead(inner_state)
        return SparsifyState(masks, method_state, inner_state, step, jnp.array(key_data), own)

    def advance(grads: Any, state: SparsifyState, params: Any, extra: Any) -> Any:
        check_state(state, plan, asker="tx.update", hint=_ANEW)
        masks, method_state = change_masks(state, params, grads)
        rule = moment_rule(inner, fill, params, extra)
        own, step_of = state.reparam, None
        if trainer is not None:
            step_of = trainer.step_of(state.masks, own, params, state.step)
            grads, own = trainer.pull_back(own, grads, params, state.masks, state.step, **extra)
        run = step_of or partial(masked_step, masks)
        updates, inner_state = run(inner, rule, grads, state.inner_state, params, **extra)
        if trainer is not None:
            own = trainer.refresh(own, params, updates, masks, state.step)
        return updates, state._replace(
            masks=masks,
            method_state=method_state,
            inner_state=inner_state,
            step=optax.safe_increment(state.step),
            reparam=own,
        )

    # One program: a loop that calls update without jit would dispatch hundreds, and compile the
    # lax.cond of the masks at each step.
    advance_compiled = jax.jit(advance, inline=True)

    def update(
        grads: Any, state: SparsifyState, params: Any = None, **extra: Any
    ) -> tuple[Any, SparsifyState]:
        if params is None:
            raise ValueError("sparsify needs the params: call tx.update(grads, opt_state, params).")
        grads, params = followed(state.masks, grads), followed(state.masks, params)
        boxed = grads, state
        grads, params, state = unboxed(grads), unboxed(params), unboxed(state)
        own = state.reparam
        if trainer is not None and not uses_forward(own, state.step):
            own = replace(own, num_blind=optax.safe_increment(own.num_blind))
            state = state._replace(reparam=own)
        if all(map(_is_data, jax.tree.leaves(extra))):
            updates, state = advance_compiled(grads, state, params, extra)
        else:
            # The loss of a line search: its closure changes from call to call, a jit would keep it.
            updates, state = advance(grads, state, params, extra)
        inner_state = _as_in(boxed[1].inner_state, state.inner_state)
        return _as_in(boxed[0], updates), state._replace(inner_state=inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _with_reparam(
    method: MaskTransform | Method, reparam: Reparam | None
) -> tuple[MaskTransform, Reparam | None]:
    """The method's transform, and its own Reparam with the user's after it."""
    if isinstance(method, MaskTransform):
        return method, reparam
    if reparam is None:
        return method.transform, method.reparam
    # What the two learn is a pair, of which the method knows its own part.
    own = lambda context: context._replace(learned=context.learned[0])
    inner = method.transform
    transform = MaskTransform(
        lambda masks, params, context: inner.init(masks, params, own(context)),
        lambda masks, state, params, grads, context: inner.update(
            masks, state, params, grads, own(context)
        ),
    )
    return transform, chain_reparams(method.reparam, reparam)


def _mask_changer(method: MaskTransform, plan: Plan, wrap: Callable[[Any], Any]) -> Any:
    """The method's update as a function of the state, params and gradients."""

    # Its own jit: a loop that calls update without one would compile the lax.cond at each step.
    @partial(jax.jit, inline=True)
    def change(masks: Any, own: Any, params: Any, grads: Any, step: Any, data: Any, learned: Any):
        context = MaskContext(plan, step, jax.random.fold_in(wrap(data), step), learned)
        return method.update(masks, own, params, grads, context)

    return lambda state, params, grads: change(
        *(state.masks, state.method_state, params, grads),
        *(state.step, state.key, state.reparam.learned),
    )


def _as_in(like: Any, tree: Any) -> Any:
    """The tree in the variables of NNX that `like` has."""
    if unboxed(like) is like:
        return tree
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(tree))


def _is_data(leaf: Any) -> bool:
    """Can jit take it as an operand?"""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _check_no_lookahead(tree: Any) -> None:
    """It keeps two copies of the weights, of which the gradients and the plan know one."""
    kinds = (optax.LookaheadParams, optax.LookaheadState)
    own = lambda node: isinstance(node, kinds)
    if any(map(own, jax.tree.leaves(tree, is_leaf=own))):
        raise ValueError(
            "sparsify needs one copy of the weights, optax.lookahead inside it keeps two; put it "
            "around, optax.lookahead(sj.sparsify(...), ...), and deploy "
            "sj.harden(params.slow, opt_state)."
        )


def _key_parts(key: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The key's raw data, which every checkpoint can hold, and how to make it a key again."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        impl = jax.random.key_impl(key)
        return jax.random.key_data(key), lambda data: jax.random.wrap_key_data(data, impl=impl)
    if dtype == jnp.uint32:
        return key, lambda data: jax.random.wrap_key_data(data)
    raise TypeError(
        f"sparsify needs a PRNG key such as jax.random.key(0), got {type(key).__name__}."
    )
