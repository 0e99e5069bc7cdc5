"""What an optimizer's state says about the weights: masks, the forward weights, those to deploy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, UInt

from sparsejax.flax_bridge import is_module, with_weights
from sparsejax.reparams.reparam import in_place_of
from sparsejax.training.asked import note_forward
from sparsejax.training.masked_step import zero_pruned
from sparsejax.training.reparam_state import ReparamState, reparametrised
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths


class SparsifyState(NamedTuple):
    """Masks (True = kept, MaskedNode = dense), and the states of the method and the optimizer."""

    masks: Any
    method_state: Any
    inner_state: Any
    step: Int[Array, ""]
    key: UInt[Array, "..."]
    reparam: ReparamState


def masks_of(opt_state: Any) -> Any:
    """The masks in an optimizer state, wherever `sparsify` sits in it.

    Looks inside optax.chain, MultiSteps, inject_hyperparams and nnx.Optimizer.opt_state. The masks
    of several `sparsify` under optax.partition are merged.

    Raises:
      ValueError: there is no SparsifyState, or several that mask the same leaf.
    """
    first, *others = (state.masks for state in states_of(opt_state, "masks_of"))
    others = [dict(leaves_with_paths(masks)) for masks in others]

    def merged(path: str, mask: Any) -> Any:
        found = (masks[path] for masks in others if not is_masked_node(masks[path]))
        return next(found, mask)

    return map_with_paths(merged, first)


def forward(model: Any, opt_state: Any) -> Any:
    """The model or params as the forward pass of the loss uses them: the one more line.

    Methods with soft masks and quantizers train with other weights than the params. A loss that is
    computed at `forward(params, opt_state)` sees these, and its gradient is what `update` of the
    sparsified optimizer takes. Where the masks are hard it is the params themselves. The second
    argument is the optimizer's state, or what holds it: a flax TrainState, an nnx.Optimizer.

    An NNX module comes back as a new module that shares all but the trained weights with the old
    one: its batch statistics and random numbers move as if the old one had been called. Equinox
    modules and other trees keep whatever is not trained.

    Raises:
      ValueError: there is no SparsifyState in opt_state, or several that mask the same leaf.

    Example:
      >>> opt_state = sj.sparsify(tx, method, plan, key=key).init(params)
      >>> loss = lambda params: jnp.mean(model.apply(sj.forward(params, opt_state), x) ** 2)
      >>> grads = jax.grad(loss)(params)
    """
    return _on_weights(lambda params: effective(params, opt_state), model, opt_state, "forward")


def effective(params: Any, opt_state: Any) -> Any:
    """The weights that the forward pass uses: a Reparam's, or the params themselves.

    The gradient with regard to `params` is that of the forward weights, one to one: `update` of the
    sparsified optimizer pulls it back through the Reparam.

    Raises:
      ValueError: there is no SparsifyState in opt_state, or several that mask the same leaf.
    """
    for state in states_of(opt_state, "effective"):
        own, reparam = state.reparam, state.reparam.reparam
        if reparam is not None:
            note_forward(own, jax.tree.leaves(state.step)[0])
            raw, masks = _masked_params(params, state.masks)
            weights = reparametrised(reparam.apply, raw, masks, state.step, own)
            params = _in_whole(params, jax.tree.map(in_place_of, raw, weights))
    return params


def harden(model: Any, opt_state: Any) -> Any:
    """The model or params to deploy, exact zeros where the masks prune: what a Reparam ends with.

    An NNX module comes back as a new one that shares all but the trained weights with the old one.

    Raises:
      ValueError: there is no SparsifyState in opt_state, or several that mask the same leaf.
    """
    return _on_weights(lambda params: _hard(params, opt_state), model, opt_state, "harden")


def _on_weights(f: Callable[[Any], Any], model: Any, opt_state: Any, asker: str) -> Any:
    if not is_module(model):
        return f(model)
    masks = states_of(opt_state, asker)[0].masks
    return with_weights(model, {path for path, _ in leaves_with_paths(masks)}, f)


def _hard(params: Any, opt_state: Any) -> Any:
    for state in states_of(opt_state, "harden"):
        own, reparam = state.reparam, state.reparam.reparam
        weights, masks = _masked_params(params, state.masks)
        if reparam is not None:
            hard = reparam.harden or reparam.apply
            weights = reparametrised(hard, weights, masks, state.step, own)
        params = _in_whole(params, zero_pruned(weights, masks))
    return params


def states_of(opt_state: Any, asker: str) -> list[SparsifyState]:
    """All SparsifyStates, of which no two mask the same leaf."""
    is_state = lambda node: isinstance(node, SparsifyState)
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
    owners: dict[str, int] = {}
    twice: list[str] = []
    for index, state in enumerate(found):
        for path, mask in leaves_with_paths(state.masks):
            if not is_masked_node(mask) and owners.setdefault(path, index) != index:
                twice.append(path)
    alike = len({tuple(path for path, _ in leaves_with_paths(s.masks)) for s in found}) == 1
    if not alike or twice:
        which = f" that both mask {twice[0]}" if twice else ""
        raise ValueError(
            f"{asker} needs an optimizer state with one SparsifyState, or several for disjoint "
            f"leaves of the same params, found {len(found)}{which} in a "
            f"{type(opt_state).__name__}; pass the state of the transform that sparsify made."
        )
    return found


def _masked_params(params: Any, masks: Any) -> tuple[Any, Any]:
    """What the masks know of the params, and the masks in its tree.

    nnx.Optimizer boxes masks in variables of its own; a whole module has leaves without a mask.
    """
    by_path = dict(leaves_with_paths(masks))
    raw = map_with_paths(lambda path, leaf: leaf if path in by_path else None, params)
    return raw, map_with_paths(lambda path, leaf: by_path[path], raw)


def _in_whole(params: Any, weights: Any) -> Any:
    """The params with these weights; what holds None among them, such as a function, stays."""
    is_none = lambda node: node is None
    pick = lambda new, old: old if new is None else new
    return jax.tree.map(pick, weights, params, is_leaf=is_none)
