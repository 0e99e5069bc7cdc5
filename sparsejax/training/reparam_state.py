"""What `sparsify` does for a Reparam: forward weights, gradients through it, what it learns."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.flax_bridge import let_flax_save
from sparsejax.masks.transforms import MaskContext
from sparsejax.plans.plan import Plan
from sparsejax.reparams.reparam import Reparam
from sparsejax.training.asked import Watch
from sparsejax.training.masked_step import resting_step

_WARM_UP = 10


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["learned", "opt_state", "num_blind"],
    meta_fields=["reparam", "plan", "watch"],
)
@dataclass(frozen=True)
class ReparamState:
    """A Reparam, static in the tree as its plan is, and what it learns; None for hard masks.

    `num_blind` counts the updates whose gradients were not those of the forward weights.
    """

    reparam: Reparam | None
    plan: Plan
    learned: Any = ()
    opt_state: Any = ()
    num_blind: Any = ()
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        """Lets flax save a TrainState or an optimizer state that holds one of these."""
        let_flax_save(ReparamState, ("learned", "opt_state", "num_blind"))


class ReparamTrainer(NamedTuple):
    """Functions on the ReparamState of one transform, and the optimizer of what it learns."""

    reparam: Reparam
    plan: Plan
    tx: optax.GradientTransformationExtraArgs | None
    watch: Watch

    def init(self, params: Any) -> ReparamState:
        """The state before the first step."""
        zero = jnp.zeros((), jnp.int32)
        self.watch.asked = self.watch.warned = False
        learned = self.reparam.init(params, _context(self.plan, zero))
        state = ReparamState(self.reparam, self.plan, learned, (), zero, self.watch)
        if not (self.reparam.trains and jax.tree.leaves(learned)):
            return state
        if self.tx is None:
            raise ValueError(
                "sparsify needs the optimizer of what this method or quantizer learns, got none; "
                "pass learned_tx=optax.adam(1e-3) or another one."
            )
        return replace(state, opt_state=self.tx.init(learned))

    def check(self, state: ReparamState) -> None:
        """Raises a ValueError if nothing will move what is learned."""
        if self.tx and self.reparam.needs_decay and not _decays(self.tx, state.learned):
            raise ValueError(
                "sparsify needs a learned_tx that decays what this method learns, as str_ starts "
                "where its thresholds are 0 and no gradient moves them; got one whose update is 0 "
                "without a gradient: pass optax.adamw(rate, weight_decay=decay) or "
                "optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate)), or start str_ "
                "nearer, such as at initial=-5."
            )

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

    def step_of(self, masks: Any, state: ReparamState, params: Any, step: Any) -> Callable | None:
        """`step(inner, rule, grads, inner_state, params)` if raw weights stay dense, else None."""
        if not self.reparam.keeps_pruned:
            return None
        at = params, masks, state.learned, _context(self.plan, step)

        def run(inner: Any, rule: Any, *args: Any, **extra: Any) -> tuple[Any, Any]:
            if self.reparam.moving is None:
                updates, inner_state = inner.update(*args, **extra)
            else:
                moving = self.reparam.moving(*at)
                updates, inner_state = resting_step(moving, inner, rule, *args, **extra)
            if self.reparam.drift is not None:
                updates = optax.tree.add(updates, self.reparam.drift(*at))
            return updates, inner_state

        return run

    def refresh(
        self, state: ReparamState, params: Any, updates: Any, masks: Any, step: Any
    ) -> ReparamState:
        """The state after the optimizer's step from these params, which ended at these masks."""
        if self.reparam.refresh is None:
            return state
        params, context = optax.apply_updates(params, updates), _context(self.plan, step)
        return replace(state, learned=self.reparam.refresh(params, masks, state.learned, context))


def _decays(tx: optax.GradientTransformationExtraArgs, learned: Any) -> bool:
    """Does `tx` move numbers that get no gradient? A warm-up from 0 may take some steps to."""
    with jax.ensure_compile_time_eval():
        own = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -1.0, leaf.dtype), learned)
        zeros, state = jax.tree.map(jnp.zeros_like, own), tx.init(own)
        for _ in range(_WARM_UP):
            updates, state = tx.update(zeros, state, own)
            if any(bool(jnp.any(update != 0)) for update in jax.tree.leaves(updates)):
                return True
    return False


def reparametrised(
    f: Callable[..., Any], params: Any, masks: Any, step: Any, state: ReparamState
) -> Any:
    """`f` of the Reparam (apply or harden) at a state whose arrays nnx.Optimizer may have boxed."""
    context = _context(state.plan, jax.tree.leaves(step)[0])
    init: Any = state.reparam and state.reparam.init
    structure = jax.tree.structure(jax.eval_shape(lambda own: init(own, context), params))
    learned = jax.tree.unflatten(structure, jax.tree.leaves(state.learned))
    return f(params, masks, learned, context)


def _context(plan: Plan, step: Any) -> MaskContext:
    return MaskContext(plan, step, None)
