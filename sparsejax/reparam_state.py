"""What `sparsify` does for a Reparam: forward weights, gradients through it, what it learns."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.masks import MaskContext
from sparsejax.reparams import Reparam


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["learned", "opt_state"],
    meta_fields=["reparam", "plan"],
)
@dataclass(frozen=True)
class ReparamState:
    """A Reparam, static in the tree as its plan is, and what it learns; None for hard masks."""

    reparam: Reparam | None
    plan: Any
    learned: Any = ()
    opt_state: Any = ()


class ReparamTrainer(NamedTuple):
    """Functions on the ReparamState of one transform, and the optimizer of what it learns."""

    reparam: Reparam
    plan: Any
    tx: optax.GradientTransformationExtraArgs | None

    def init(self, params: Any) -> ReparamState:
        """The state before the first step."""
        learned = self.reparam.init(params, _context(self.plan, jnp.zeros((), jnp.int32)))
        if not (self.reparam.trains and jax.tree.leaves(learned)):
            return ReparamState(self.reparam, self.plan, learned)
        if self.tx is None:
            raise ValueError(
                "sparsify needs the optimizer of what this method or quantizer learns, got none; "
                "pass learned_tx=optax.adam(1e-3) or another one."
            )
        return ReparamState(self.reparam, self.plan, learned, self.tx.init(learned))

    def pull_back(
        self, state: ReparamState, grads: Any, params: Any, masks: Any, step: Any, **extra: Any
    ) -> tuple[Any, ReparamState]:
        """The raw weights' gradients, out of those of the forward weights; learns on the way."""
        context = _context(self.plan, step)
        apply = lambda raw, learned: self.reparam.apply(raw, masks, learned, context)
        grads, learned_grads = jax.vjp(apply, params, state.learned)[1](grads)
        if self.tx is None or not (self.reparam.trains and jax.tree.leaves(state.learned)):
            return grads, state
        updates, opt_state = self.tx.update(learned_grads, state.opt_state, state.learned, **extra)
        learned = optax.apply_updates(state.learned, updates)
        return grads, replace(state, learned=learned, opt_state=opt_state)

    def refresh(
        self, state: ReparamState, params: Any, updates: Any, masks: Any, step: Any
    ) -> ReparamState:
        """The state after the optimizer's step from these params, which ended at these masks."""
        if self.reparam.refresh is None:
            return state
        params, context = optax.apply_updates(params, updates), _context(self.plan, step)
        return replace(state, learned=self.reparam.refresh(params, masks, state.learned, context))


def reparametrised(
    f: Callable[..., Any], params: Any, masks: Any, step: Any, state: ReparamState
) -> Any:
    """`f` of the Reparam (apply or harden) at a state whose arrays nnx.Optimizer may have boxed."""
    context = _context(state.plan, jax.tree.leaves(step)[0])
    init: Any = state.reparam and state.reparam.init
    structure = jax.tree.structure(jax.eval_shape(lambda own: init(own, context), params))
    learned = jax.tree.unflatten(structure, jax.tree.leaves(state.learned))
    return f(params, masks, learned, context)


def _context(plan: Any, step: Any) -> MaskContext:
    return MaskContext(plan, step, None)
