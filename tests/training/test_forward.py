"""Forward weights: one more line in any loop, and a warning where a loop lacks it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj
from tests import cases

REPARAMS = {name: row.make for name, row in cases.SOFT_METHODS.items()} | {
    name: lambda row=row: sj.masks.Method(sj.chain(), row.make())
    for name, row in cases.QUANTIZERS.items()
}
ADAM = optax.adam(0.02)


def make(method, *, params=None, tx=ADAM):
    params = {"kernel": jnp.ones((4, 8)) + jnp.arange(8.0)} if params is None else params
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    return params, sj.sparsify(tx, method, plan, key=jax.random.key(0), learned_tx=ADAM)


def loss(params):
    return jnp.sum((params["kernel"] - 0.3) ** 2)


def right(tx):
    def step(params, state):
        grads = jax.grad(lambda p: loss(sj.forward(p, state)))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def unchanged(tx):
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("name", REPARAMS)
def test_an_unchanged_loop_is_told_and_counted(name):
    # The right loop first: what it asked for must not speak for the other one.
    params, tx = make(REPARAMS[name]())
    start = jax.eval_shape(tx.init, params)
    jax.eval_shape(right(tx), params, start)
    params, tx = make(REPARAMS[name]())
    start = jax.eval_shape(tx.init, params)
    with pytest.warns(sj.ForwardWarning, match=r"sj.forward\(params, opt_state\)"):
        jax.eval_shape(unchanged(tx), params, start)
    jax.eval_shape(unchanged(tx), params, start)  # it says it once


def test_blind_updates_are_counted_and_others_are_not():
    for loop, counted in ((right, 0), (unchanged, 3)):
        params, tx = make(sj.masks.Method(sj.one_shot(), sj.soft.straight_through()))
        state, step = tx.init(params), jax.jit(loop(tx))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sj.ForwardWarning)
            for _ in range(3):
                params, state = step(params, state)
        assert int(state.reparam.num_blind) == counted


def _two_jits(tx):
    grads_of = jax.jit(lambda p, s: jax.grad(lambda p: loss(sj.forward(p, s)))(p))
    update = jax.jit(tx.update)

    def step(params, state):
        updates, state = update(grads_of(params, state), state, params)
        return optax.apply_updates(params, updates), state

    return step


@jax.jit
def _shared_grads(params, state):
    return jax.grad(lambda p: loss(sj.forward(p, state)))(params)


@jax.jit
def _shared_remat_grads(params, state):
    return jax.grad(jax.checkpoint(lambda p: loss(sj.forward(p, state))))(params)


def _shared_jit(tx, grads_of=_shared_grads):
    def step(params, state):
        updates, state = jax.jit(tx.update)(grads_of(params, state), state, params)
        return optax.apply_updates(params, updates), state

    return step


def _weights_outside(tx):
    update = jax.jit(lambda g, s, p: tx.update(g, s, p))

    def step(params, state):
        grads = jax.grad(loss)(sj.effective(params, state))
        updates, state = update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def _accumulated(tx):
    def step(params, state):
        def micro(total, _):
            grads = jax.grad(lambda p: loss(sj.forward(p, state)))(params)
            return jax.tree.map(jnp.add, total, grads), None

        grads, _ = jax.lax.scan(micro, jax.tree.map(jnp.zeros_like, params), length=2)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def _scanned(tx):
    return jax.jit(
        lambda p, s: jax.lax.scan(lambda c, _: (right(tx)(*c), None), (p, s), length=2)[0]
    )


def _shard_map(tx):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = jax.P()
    step = jax.shard_map(
        right(tx), mesh=mesh, in_specs=(whole, whole), out_specs=(whole, whole), check_vma=False
    )
    return jax.jit(step)


def _remat(tx):
    def step(params, state):
        grads = jax.grad(jax.checkpoint(lambda p: loss(sj.forward(p, state))))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def _sharpness_aware(tx):
    """Two gradients, one update."""

    def step(params, state):
        grads = jax.grad(lambda p: loss(sj.forward(p, state)))
        near = jax.tree.map(lambda p, g: p + 0.01 * g, params, grads(params))
        updates, state = tx.update(grads(near), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


LOOPS = {
    "one_jit": lambda tx: jax.jit(right(tx)),
    "eager": right,
    "two_jits": _two_jits,
    "shared_jit": _shared_jit,
    "shared_remat": lambda tx: _shared_jit(tx, _shared_remat_grads),
    "weights_outside": _weights_outside,
    "accumulated": _accumulated,
    "scanned": _scanned,
    "shard_map": _shard_map,
    "remat": _remat,
    "sharpness_aware": _sharpness_aware,
}


SHARED = {"shared_jit", "shared_remat"}
CONCRETE = {"eager", "two_jits", *SHARED, "weights_outside"}


def _run(loop, size):
    params, tx = make(
        sj.masks.Method(sj.one_shot(), sj.soft.straight_through()),
        params={"kernel": jnp.ones((4, size)) + jnp.arange(size)},
    )
    step, state = LOOPS[loop](tx), tx.init(params)
    if loop in CONCRETE:
        for _ in range(2):
            params, state = step(params, state)
        assert int(state.reparam.num_blind) == 0
    else:  # what is seen is seen in the trace
        jax.eval_shape(step, params, state)


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_with_the_line_are_left_alone_and_speak_for_no_other(loop):
    size = 4 + sorted(LOOPS).index(loop)
    for _ in range(2):  # two equal transforms: the second meets caches
        _run(loop, size)
    if loop in SHARED:  # its function lives on, and may be called for an equal transform
        return
    params, tx = make(
        sj.masks.Method(sj.one_shot(), sj.soft.straight_through()),
        params={"kernel": jnp.ones((4, size)) + jnp.arange(size)},
    )
    state = jax.eval_shape(tx.init, params)
    with pytest.warns(sj.ForwardWarning):
        jax.eval_shape(unchanged(tx), params, state)


@pytest.mark.parametrize("wrapper", ["multi_steps", "apply_if_finite", "chain", "inject"])
def test_wrappers_are_left_alone(wrapper):
    params, tx = make(sj.soft.sr_ste())
    tx = {
        "multi_steps": optax.MultiSteps(tx, 2).gradient_transformation(),
        "apply_if_finite": optax.apply_if_finite(tx, 3),
        "chain": optax.chain(optax.clip(1.0), tx),
        "inject": optax.inject_hyperparams(
            lambda rate: make(sj.soft.sr_ste(), tx=optax.sgd(rate))[1]
        )(0.1),
    }[wrapper]
    state = jax.eval_shape(tx.init, params)
    jax.eval_shape(lambda p, s: right(tx)(*right(tx)(p, s)), params, state)


def test_a_resumed_training_and_an_evaluation_are_left_alone():
    params, tx = make(sj.soft.sr_ste())
    template = jax.eval_shape(tx.init, params)
    saved = jax.tree.map(np.asarray, tx.init(params))
    state = jax.tree.unflatten(jax.tree.structure(template), jax.tree.leaves(saved))
    params, state = jax.jit(right(tx))(params, state)
    jax.jit(sj.effective)(params, state)
    sj.harden(params, state)
    jax.jit(lambda p, s: right(tx)(*right(tx)(p, s)))(params, state)


@pytest.mark.parametrize("learned_tx", [optax.sgd(0.1), ADAM, optax.adamw(0.1, weight_decay=0.0)])
def test_thresholds_that_nothing_moves_are_refused(learned_tx):
    params = {"kernel": jnp.ones((4, 4))}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    make = lambda method, tx: sj.sparsify(ADAM, method, plan, key=jax.random.key(0), learned_tx=tx)
    with pytest.raises(ValueError, match="needs a learned_tx that decays what this method learns"):
        make(sj.soft.str_(), learned_tx).init(params)
    chained = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1e-3))
    warm_up = optax.adamw(optax.linear_schedule(0.0, 0.1, 5), weight_decay=0.1)
    for method, tx in (
        (sj.soft.str_(), chained),
        (sj.soft.str_(), warm_up),
        (sj.soft.str_(initial=-5.0), learned_tx),
        (sj.soft.str_(exact_from=3), learned_tx),
    ):
        jax.eval_shape(make(method, tx).init, params)
