"""The bridge to optax: an optimizer whose pruned weights are exactly zero."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from sparsejax.doors import INITIAL_MASKS, PLAN, checked
from sparsejax.initial_masks import InitialMasks, full_masks
from sparsejax.masks import METHOD, OPTIMIZER, MaskContext, MaskTransform, Method
from sparsejax.reparam_state import ReparamState, ReparamTrainer, reparametrised
from sparsejax.reparams import REPARAM, Reparam, chain_reparams, in_place_of
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths


class SparsifyState(NamedTuple):
    """Masks (True = kept, MaskedNode = dense), and the states of the method and the optimizer."""

    masks: Any
    method_state: Any
    inner_state: Any
    step: Int[Array, ""]
    key: UInt[Array, "..."]
    reparam: ReparamState


@checked(
    tx=OPTIMIZER,
    method=METHOD,
    plan=PLAN,
    learned_tx=OPTIMIZER,
    initial_masks=INITIAL_MASKS,
    reparam=REPARAM,
)
def sparsify(
    tx: optax.GradientTransformation,
    method: MaskTransform | Method,
    plan: Any,
    *,
    key: PRNGKeyArray,
    reparam: Reparam | None = None,
    learned_tx: optax.GradientTransformation | None = None,
    initial_masks: InitialMasks = full_masks,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer `tx` with masks: an ordinary optax transform that keeps pruned weights at 0.

    Each update first lets the method change the masks, given the raw, dense gradients. `tx` then
    sees gradients, params and its own param-shaped state (moments) with zeros where weights are
    pruned, so that a regrown weight starts with zero moments. The update of a pruned weight is
    exactly -w: the user's unchanged `optax.apply_updates` lands on 0.0 whatever momentum or weight
    decay did. So `sparsify` goes outermost, around the whole chain (`optax.MultiSteps` may go
    around it). A weight that is infinite or NaN when it is pruned becomes NaN.

    Args:
      tx: any optax transform.
      method: such as `gmp(...)`, or a Method such as `pdp(...)`, which brings a Reparam.
      plan: names the leaves, their patterns and targets; it must fit the params given to `init`.
      key: a PRNG key for methods that draw.
      reparam: None for hard masks. With a Reparam the forward pass uses
        `effective(params, opt_state)`; the gradients given to `update` are those of these weights,
        and `update` pulls them back to the params and to what the Reparam learns. `harden` gives
        the weights to deploy. After a Method's own Reparam this one comes second.
      learned_tx: the optimizer of what the Reparam learns, if it learns by gradients.
      initial_masks: `full_masks`, or `masks_from_zeros` to continue from a sparse checkpoint.

    Raises:
      TypeError: key is not a PRNG key.
      ValueError: the plan names a leaf that the params lack or that has another shape there, or
        `update` is called without params, or learned_tx is missing.

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
    trainer = None if reparam is None else ReparamTrainer(reparam, plan, learned_inner)
    change_masks = _mask_changer(method, plan, wrap)

    def init(params: Any) -> SparsifyState:
        _check_plan(plan, params)
        step = jnp.zeros((), jnp.int32)
        own = ReparamState(None, plan) if trainer is None else trainer.init(params)
        context = MaskContext(plan, step, wrap(key_data), own.learned)
        # A copy: a step that takes the state's buffers must not take the user's masks.
        masks = jax.tree.map(jnp.copy, initial_masks(params, plan))
        masks, method_state = method.init(masks, params, context)
        return SparsifyState(
            masks, method_state, inner.init(params), step, jnp.array(key_data), own
        )

    def advance(grads: Any, state: SparsifyState, params: Any, extra: Any) -> Any:
        masks, method_state = change_masks(state, params, grads)
        own, step_of = state.reparam, partial(_masked_update, inner, masks)
        if trainer is not None:
            grads, own = trainer.pull_back(own, grads, params, state.masks, state.step, **extra)
            step_of = inner.update if trainer.reparam.keeps_pruned else step_of
        updates, inner_state = step_of(grads, state.inner_state, params, **extra)
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
        if all(map(_is_data, jax.tree.leaves(extra))):
            return advance_compiled(grads, state, params, extra)
        # A loss for a line search: its closure changes from call to call, and a jit would keep it.
        return advance(grads, state, params, extra)

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


def _mask_changer(method: MaskTransform, plan: Any, wrap: Callable[[Any], Any]) -> Any:
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


def _masked_update(
    inner: Any, masks: Any, grads: Any, inner_state: Any, params: Any, **extra: Any
) -> tuple[Any, Any]:
    """The inner optimizer's step on the pruned network, landing on zero."""
    # Before: a weight pruned just now must not reach norms, trust ratios or orthogonalisation.
    inner_state = _zero_pruned_moments(inner, inner_state, masks)
    updates, inner_state = inner.update(
        _zero_pruned(grads, masks), inner_state, _zero_pruned(params, masks), **extra
    )
    # After: noise or a penalty inside the optimizer may have moved them again.
    inner_state = _zero_pruned_moments(inner, inner_state, masks)
    return _land_on_zero(updates, params, masks), inner_state


def _is_data(leaf: Any) -> bool:
    """Can jit take it as an operand?"""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def masks_of(opt_state: Any) -> Any:
    """The masks in an optimizer state, wherever `sparsify` sits in it.

    Looks inside optax.chain, MultiSteps, inject_hyperparams and nnx.Optimizer.opt_state.

    Raises:
      ValueError: there is no SparsifyState, or several.
    """
    return _state_of(opt_state, "masks_of").masks


def effective(params: Any, opt_state: Any) -> Any:
    """The weights that the forward pass uses: a Reparam's, or the params themselves.

    The gradient with regard to `params` is that of the forward weights, one to one: `update` of the
    sparsified optimizer pulls it back through the Reparam. So the training loop stays as it is.

    Raises:
      ValueError: there is no SparsifyState in opt_state, or several.
    """
    state = _state_of(opt_state, "effective")
    own, reparam = state.reparam, state.reparam.reparam
    if reparam is None:
        return params
    masks = _masks_like(params, state.masks)
    weights = reparametrised(reparam.apply, params, masks, state.step, own)
    return jax.tree.map(in_place_of, params, weights)


def harden(params: Any, opt_state: Any) -> Any:
    """The weights to deploy, with exact zeros where the masks prune: what a Reparam ends with.

    Raises:
      ValueError: there is no SparsifyState in opt_state, or several.
    """
    state = _state_of(opt_state, "harden")
    own, reparam = state.reparam, state.reparam.reparam
    masks = _masks_like(params, state.masks)
    if reparam is not None:
        hard = reparam.harden or reparam.apply
        params = reparametrised(hard, params, masks, state.step, own)
    return _zero_pruned(params, masks)


def _state_of(opt_state: Any, asker: str) -> SparsifyState:
    is_state = lambda node: isinstance(node, SparsifyState)
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
    if len(found) != 1:
        raise ValueError(
            f"{asker} needs an optimizer state with one SparsifyState, found {len(found)} in a "
            f"{type(opt_state).__name__}; pass the state of the transform that sparsify made."
        )
    return found[0]


def _masks_like(params: Any, masks: Any) -> Any:
    """The masks in the params' tree: nnx.Optimizer boxes them in variables of its own."""
    by_path = dict(leaves_with_paths(masks))
    return map_with_paths(lambda path, leaf: by_path[path], params)


def _zero_pruned(tree: Any, masks: Any) -> Any:
    return jax.tree.map(_zero_at, tree, masks, is_leaf=is_masked_node)


def _zero_at(leaf: Any, mask: Any) -> Any:
    """Zeros where the mask prunes; leaves of another shape, such as factored moments, stay."""
    if is_masked_node(mask) or is_masked_node(leaf) or jnp.shape(leaf) != mask.shape:
        return leaf
    return jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))


def _zero_pruned_moments(tx: Any, inner_state: Any, masks: Any) -> Any:
    return optax.tree.map_params(tx, _zero_at, inner_state, masks, is_leaf=is_masked_node)


def _land_on_zero(updates: Any, params: Any, masks: Any) -> Any:
    """-w at pruned weights, in the params' dtype: any narrower one would miss zero."""

    def land(update: Any, weights: Any, mask: Any) -> Any:
        if is_masked_node(mask):
            return update
        return jnp.where(mask, update.astype(weights.dtype), -weights)

    return jax.tree.map(land, updates, params, masks)


def _check_plan(plan: Any, params: Any) -> None:
    """Each planned leaf is there, with its shape."""
    shapes = {path: jnp.shape(leaf) for path, leaf in leaves_with_paths(params)}
    if not shapes:  # optax.tree.map_params calls init on a placeholder without leaves
        return
    for leaf in plan.leaves:
        if shapes.get(leaf.path) != leaf.shape:
            there = shapes.get(leaf.path, "no such leaf")
            raise ValueError(
                f"sparsify needs the params that the plan was made for: {leaf.path} has shape "
                f"{leaf.shape} in the plan and {there} in the params; make the plan anew."
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
