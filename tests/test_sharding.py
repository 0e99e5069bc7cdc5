"""Laws on meshes: masks lie where the params lie, and no weight is gathered to change them."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj
from tests import cases

SPECS = {
    "dense/kernel": P("x", "y"),
    "conv/kernel": P(None, None, "x", "y"),
    "conv/bias": P("y"),
    "head/kernel": P(),
}


def meshes():
    explicit, auto = (AxisType.Explicit,) * 2, (AxisType.Auto,) * 2
    return {
        "explicit_2x2": (jax.make_mesh((2, 2), ("x", "y"), explicit), SPECS),
        "auto_2x2": (jax.make_mesh((2, 2), ("x", "y"), auto), SPECS),
        "data_parallel": (jax.make_mesh((4, 1), ("x", "y"), auto), {name: P() for name in SPECS}),
    }


def put(params, mesh, specs):
    place = lambda path, leaf: jax.device_put(leaf, NamedSharding(mesh, specs[path]))
    return sj.tree.map_with_paths(place, params)


PLANS = {
    "unstructured": {"conv/kernel": sj.Unstructured(), "dense": sj.Unstructured()},
    "groups": {"conv/kernel": sj.Block(2, 1), "dense": (sj.NM(2, 4), 0.5)},
    "one leaf": {"conv/kernel": sj.Unstructured()},
}


METHODS = {
    "gmp": sj.gmp(1, 3, every=1),
    "global_mp": sj.global_mp(1, 3, every=1),
    "swap": sj.chain(
        sj.start(sj.scores.magnitude),
        sj.every(
            1, sj.chain(sj.drop(sj.scores.magnitude, lambda step: 0.2), sj.grow(sj.scores.gradient))
        ),
    ),
}
METHODS["redrawn"] = sj.every(1, sj.prune(sj.scores.random, lambda step: 1.0, regrow=True))
CASES = [
    *[
        ("gmp", plan_name, mesh_name)
        for plan_name in ("unstructured", "groups")
        for mesh_name in meshes()
    ],
    ("swap", "unstructured", "explicit_2x2"),
    ("swap", "groups", "auto_2x2"),
    ("global_mp", "unstructured", "explicit_2x2"),
    ("static_random", "one leaf", "explicit_2x2"),
    ("redrawn", "one leaf", "auto_2x2"),
]


def one_step_of(tx):
    def one_step(grads, opt_state, params):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(one_step)


@functools.cache
def masks_on_one_device(method, plan_name):
    params, tx, _ = set_up(method, plan_name)
    grads, opt_state, step = cases.fake_grads(params, 1), tx.init(params), one_step_of(tx)
    for _ in range(4):
        params, opt_state = step(grads, opt_state, params)
    return dict(sj.tree.leaves_with_paths(sj.masks_of(opt_state)))


def set_up(method, plan_name):
    params = cases.dict_params()
    plan = sj.plan(params, PLANS[plan_name], sparsity=0.5)
    transform = METHODS.get(method, sj.static_random())
    # A threefry key: its draws do not depend on how the result is sharded.
    tx = sj.sparsify(optax.sgd(0.1, momentum=0.9), transform, plan, key=jax.random.key(0))
    return params, tx, plan


@pytest.mark.parametrize(("method", "plan_name", "mesh_name"), CASES)
def test_masks_are_sharded_like_params_and_equal_one_device(method, plan_name, mesh_name):
    mesh, specs = meshes()[mesh_name]
    single, tx, plan = set_up(method, plan_name)
    grads = cases.fake_grads(single, 1)
    with jax.set_mesh(mesh):
        params, sharded_grads = put(single, mesh, specs), put(grads, mesh, specs)
        opt_state = tx.init(params)
        everywhere = NamedSharding(mesh, P())
        opt_state = jax.tree.map(
            lambda leaf: leaf if leaf.size > 4 else jax.device_put(leaf, everywhere), opt_state
        )
        compiled = one_step_of(tx).lower(sharded_grads, opt_state, params).compile()
        for _ in range(4):  # a state that changed its sharding would not be taken again
            params, opt_state = compiled(sharded_grads, opt_state, params)
    masks = dict(sj.tree.leaves_with_paths(sj.masks_of(opt_state)))
    values = dict(sj.tree.leaves_with_paths(params))
    for leaf in plan.leaves:
        mask, weights = masks[leaf.path], values[leaf.path]
        assert mask.sharding.is_equivalent_to(weights.sharding, mask.ndim), leaf.path
        assert np.all(np.asarray(weights)[~np.asarray(mask)] == 0.0)
    gathered = largest_gather(compiled.as_text())
    assert gathered <= 16, f"an all-gather of {gathered} elements"
    for path, mask in masks_on_one_device(method, plan_name).items():
        if plan.get(path):
            np.testing.assert_array_equal(mask, masks[path])


def largest_gather(hlo):
    """The number of elements of the largest all-gather or all-to-all."""
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* (?:all-gather|all-to-all)", hlo)
    return max(
        (int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes), default=0
    )


def test_the_gather_detector_sees_a_gather():
    mesh, specs = meshes()["auto_2x2"]
    params = put(cases.dict_params(), mesh, specs)
    sort = jax.jit(lambda kernel: jnp.sort(kernel.ravel()))
    text = sort.lower(params["dense"]["kernel"]).compile().as_text()
    assert largest_gather(text) >= 384
