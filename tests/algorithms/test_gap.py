"""Grow-and-prune: one dense part at a time, in turn or on copies, and the target in the end."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import sparsejax as sj
from tests import cases


def layers(*sizes, seed=0):
    generator = np.random.default_rng(seed)
    return {
        f"layer{i}": {"kernel": jnp.asarray(generator.normal(size=n), jnp.float32)}
        for i, n in enumerate(sizes)
    }


def planned(params, sparsity=0.75, pattern=None):
    return sj.plan(params, {"kernel": pattern or sj.Unstructured()}, sparsity=sparsity)


def parts_of(*sizes, num_parts):
    return list(sj.sparse_training.gap_parts(planned(layers(*sizes)), num_parts).values())


def test_parts_are_contiguous_and_of_about_equal_sizes():
    assert parts_of(10, 10, 10, 10, num_parts=2) == [0, 0, 1, 1]
    assert parts_of(10, 10, 20, 40, num_parts=2) == [0, 0, 0, 1]
    assert parts_of(8, 16, 32, 64, 64, 64, num_parts=4) == [0, 0, 0, 1, 2, 3]
    assert parts_of(1000, 4, 4, num_parts=3) == [0, 1, 2]
    assert parts_of(4, 4, 1000, num_parts=3) == [0, 1, 2]
    assert parts_of(5, 5, num_parts=1) == [0, 0]
    with pytest.raises(ValueError, match="2 leaves in the plan for 3 parts"):
        parts_of(5, 5, num_parts=3)


@pytest.mark.parametrize("pattern", ["unstructured", "block_4x1", "nm_2_4"])
def test_exactly_one_part_is_dense_at_any_time(pattern):
    params = layers((8, 4), (4, 8), (8, 8))
    plan = planned(params, cases.PATTERNS[pattern][1], cases.PATTERNS[pattern][0])
    method = sj.sparse_training.gap(3, every=2, rounds=2)
    context = lambda step: sj.masks.MaskContext(plan, step, jax.random.key(0))

    def run(params):
        first = method.init(sj.masks.full_masks(params, plan), params, context(jnp.int32(0)))

        def one_step(carry, step):
            carry = method.update(*carry, params, params, context(step))
            return carry, carry[0]

        return first[0], jax.lax.scan(one_step, first, jnp.arange(15))[1]

    first, masks = jax.jit(run)(params)
    targets = [leaf.num_weights - leaf.num_pruned for leaf in plan.leaves]
    assert [int(np.sum(mask)) for mask in jax.tree.leaves(first)] == targets
    kept = np.stack([np.asarray(m).reshape(15, -1).sum(1) for m in jax.tree.leaves(masks)], 1)
    for step in range(15):
        grown = step // 2 % 3 if step < 12 else None
        wanted = [
            leaf.num_weights if part == grown else target
            for part, (leaf, target) in enumerate(zip(plan.leaves, targets, strict=True))
        ]
        assert kept[step].tolist() == wanted, step
    for leaf, mask in zip(plan.leaves, jax.tree.leaves(masks), strict=True):
        leaf.pattern.check(np.asarray(mask[-1]), leaf.path)


def test_the_part_that_was_dense_is_pruned_by_magnitude():
    # Part 0 starts as 3, 4 of four weights; while it is dense 9 and 8 grow, which then stay.
    params = {"a": {"kernel": jnp.array([1.0, 2.0, 3.0, 4.0])}, "b": {"kernel": jnp.ones(4)}}
    plan = planned(params, 0.5)
    method, key = sj.sparse_training.gap(2, every=1), jax.random.key(0)
    masks, state = method.init(
        sj.masks.full_masks(params, plan), params, sj.masks.MaskContext(plan, jnp.int32(0), key)
    )
    np.testing.assert_array_equal(masks["a"]["kernel"], [0, 0, 1, 1])
    for step, weights, wanted in (
        (0, [0.0, 0.0, 3.0, 4.0], [1, 1, 1, 1]),
        (1, [9.0, 8.0, 3.0, 4.0], [1, 1, 0, 0]),
        (2, [9.0, 8.0, 0.0, 0.0], [1, 1, 0, 0]),
    ):
        params = {"a": {"kernel": jnp.array(weights)}, "b": params["b"]}
        context = sj.masks.MaskContext(plan, jnp.int32(step), key)
        masks, state = method.update(masks, state, params, params, context)
        np.testing.assert_array_equal(masks["a"]["kernel"], wanted)
        assert int(masks["b"]["kernel"].sum()) == (4 if step == 1 else 2)


def parallel_training(plan, num_parts):
    """`f(part, params) -> params`, a copy trained for 20 steps towards 1, 2, 3, ..."""
    goal = lambda leaf: jnp.arange(1.0, leaf.size + 1.0).reshape(leaf.shape) / leaf.size
    loss = lambda params: sum(jnp.sum((x - goal(x)) ** 2) for x in jax.tree.leaves(params))

    def trained(part, params):
        tx = sj.sparsify(
            optax.sgd(0.2),
            sj.chain(),
            plan,
            key=jax.random.key(0),
            initial_masks=sj.sparse_training.grown_part(part, num_parts),
        )

        def one_step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(one_step, (params, tx.init(params)), length=20)[0][0]

    return trained, loss


def test_parallel_parts_train_under_vmap_and_one_on_each_device():
    params = layers((6, 4), (4, 6), (8, 4), (4, 8)) | {"bias": jnp.zeros(3)}
    plan = planned(params)
    trained, loss = parallel_training(plan, 4)
    indices = jnp.arange(4)
    copies = jax.jit(jax.vmap(trained, in_axes=(0, None)))(indices, params)
    for index in range(4):
        for part, leaf in enumerate(plan.leaves):
            zeros = np.sum(np.asarray(copies[f"layer{part}"]["kernel"][index]) == 0.0)
            assert zeros == (0 if part == index else leaf.num_pruned)
    combined = sj.sparse_training.combine_parts(copies, plan, 4)
    for leaf in plan.leaves:
        assert np.sum(np.asarray(combined[leaf.path[:6]]["kernel"]) == 0.0) == leaf.num_pruned
    np.testing.assert_allclose(combined["bias"], np.mean(copies["bias"], 0), rtol=1e-6)
    assert float(loss(combined)) < float(loss(params))
    # The largest goals are what a dense part finds, wherever the magnitudes started.
    top = np.argsort(-np.arange(24))[:6]
    assert np.all(np.asarray(combined["layer0"]["kernel"]).ravel()[top] != 0.0)

    mesh = jax.make_mesh((4,), ("part",), axis_types=(jax.sharding.AxisType.Auto,))
    own = lambda part, params: jax.tree.map(lambda x: x[None], trained(part[0], params))
    spread = jax.shard_map(
        own, mesh=mesh, in_specs=(P("part"), P()), out_specs=P("part"), check_vma=False
    )
    on_devices = jax.jit(spread)(indices, params)
    assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(on_devices))
    chex.assert_trees_all_close(copies, on_devices, rtol=1e-5, atol=1e-6)


def test_errors_at_the_door():
    with pytest.raises(ValueError, match="at least 1"):
        sj.sparse_training.gap(0, every=3)
    params = layers(4, 4)
    with pytest.raises(ValueError, match="leading axis of 2 copies"):
        sj.sparse_training.combine_parts(params, planned(params), 2)
