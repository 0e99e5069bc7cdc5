"""A checkpoint in the middle of training continues bit for bit, or says why it can't."""

import re
from pathlib import Path

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj
from tests import cases

ROOT = Path(__file__).parents[2]


def assert_same(trees, others):
    """Equal structures, dtypes and bits."""
    chex.assert_trees_all_equal(trees, others, strict=True)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x.weak_type, t) for t in (trees, others)))


def trainer(method, reparam=None):
    params = cases.dict_params()
    plan = sj.plan(
        params, {"conv/kernel": sj.Unstructured(), "dense": (sj.NM(2, 4), 0.5)}, sparsity=0.75
    )
    inner = optax.chain(sj.add_penalty(sj.margin(), 0.01), optax.adamw(0.05))
    key = jax.random.key(0, impl="rbg")
    tx = sj.sparsify(inner, method, plan, key=key, reparam=reparam, learned_tx=optax.adam(0.1))

    @jax.jit
    def one_step(params, opt_state):
        grads = cases.fake_grads(sj.forward(params, opt_state), opt_state.step)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return plan, params, jax.jit(tx.init)(params), one_step


TRAINERS = {
    "gmp": lambda: trainer(cases.METHODS["gmp"].transform),
    "sparse_evolution": lambda: trainer(cases.METHODS["sparse_evolution"].transform),
    "straight_through": lambda: trainer(cases.METHODS["gmp"].transform, sj.soft.straight_through()),
    "movement": lambda: trainer(sj.soft.movement(1, 9)),
}


@pytest.mark.parametrize("method", TRAINERS)
def test_training_continues_bit_for_bit(method, tmp_path):
    plan, params, opt_state, one_step = TRAINERS[method]()
    empty = jax.tree.map(np.zeros_like, params), jax.tree.map(jnp.zeros_like, opt_state)
    with sj.checkpoint(tmp_path, plan) as ckpt:
        for step in range(1, 5):
            params, opt_state = one_step(params, opt_state)
            assert ckpt.save(step, params, opt_state)
    with sj.checkpoint(tmp_path, plan) as ckpt:
        step, *again = ckpt.restore(jax.tree.map(jnp.asarray, empty[0]), empty[1])
        assert step == 4 and ckpt.steps == (3, 4) and ckpt.plan(4) == plan
    for _ in range(6):
        params, opt_state = one_step(params, opt_state)
        again = one_step(*again)
    assert_same(tuple(again), (params, opt_state))


@pytest.mark.parametrize("kind", [*cases.TREES, "equinox_whole"])
def test_every_kind_of_tree_comes_back(kind, tmp_path):
    params, rules, _ = cases.TREES[kind.removesuffix("_whole")]()
    if kind == "equinox_whole":
        params = eqx.nn.MLP(8, 4, 16, 1, key=jax.random.key(0))
    plan = sj.plan(params, rules, sparsity=0.75)
    arrays = eqx.filter(params, eqx.is_array) if kind == "equinox_whole" else params
    tx = sj.sparsify(optax.adam(0.1), sj.one_shot(), plan, key=jax.random.key(0))
    opt_state = tx.init(arrays)
    other = jax.tree.map(lambda leaf: leaf + 1 if eqx.is_array(leaf) else leaf, params)
    with sj.checkpoint(tmp_path) as ckpt:
        ckpt.save(1, params, opt_state)
        assert ckpt.plan(1) == plan, "the state tells it"
        assert_same(ckpt.restore(arrays)[1], arrays) if kind != "equinox_whole" else None
        step, *again = ckpt.restore(other, jax.eval_shape(tx.init, arrays))
    assert step == 1
    strip = lambda tree: jax.tree.map(lambda leaf: leaf if eqx.is_array(leaf) else None, tree)
    assert_same(strip(tuple(again)), strip((params, opt_state)))
    assert jax.tree.structure(again[0]) == jax.tree.structure(params)


def test_nnx_modules_and_optimizers_come_back(tmp_path):
    def make():
        model = cases.NNX(nnx.Rngs(0))
        params = nnx.state(model, nnx.Param)
        plan = sj.plan(params, {"layers/0/kernel": sj.Block(4, 1)}, sparsity=0.5)
        tx = sj.sparsify(optax.adam(0.05), sj.gmp(0, 6, every=2), plan, key=jax.random.key(0))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def one_step(model, optimizer):
        optimizer.update(model, cases.fake_grads(nnx.state(model, nnx.Param), optimizer.step[...]))

    model, optimizer = make()
    for _ in range(3):
        one_step(model, optimizer)
    with sj.checkpoint(tmp_path / "states") as ckpt:
        ckpt.save(3, nnx.state(model), nnx.state(optimizer))
        others = make()
        step, *states = ckpt.restore(*map(nnx.state, others))
        for other, state in zip(others, states, strict=True):
            nnx.update(other, state)
    with sj.checkpoint(tmp_path / "objects") as ckpt:
        ckpt.save(3, model, optimizer)
        wholes = ckpt.restore(*make())[1:]
    for _ in range(4):
        one_step(model, optimizer)
        one_step(*others)
        one_step(*wholes)
    assert step == 3
    assert_same(nnx.state(others), nnx.state((model, optimizer)))
    assert_same(nnx.state(tuple(wholes)), nnx.state((model, optimizer)))


LEAVES = {
    "key": jax.random.key(3),
    "other_key": jax.random.key(1, impl="rbg"),
    "empty": jnp.zeros((0, 3)),
    "bfloat16": jnp.arange(3, dtype=jnp.bfloat16),
    "int4": jnp.arange(3, dtype=jnp.int4),
    "weak": jnp.asarray(1.5),
    "a/b": jnp.ones(2),
    "a": {"b": jnp.zeros(2)},
    "ü .'\"\n": jnp.ones(1),
    "numpy": np.arange(3),
    "scalar": np.float64(0.1),
    "numbers": (5, 0.25, True, 1j),
    "dense": optax.MaskedNode(),
    "others": (None, "text", jax.nn.relu),
}


def test_every_kind_of_leaf_comes_back(tmp_path):
    with sj.checkpoint(tmp_path) as ckpt:
        ckpt.save(7, {}, LEAVES, notes={"position": [1, {"epoch": 2}], "loss": 0.1})
        assert ckpt.notes(7) == {"position": [1, {"epoch": 2}], "loss": 0.1}
        assert ckpt.plan(7) is None
        step, _, again = ckpt.restore({}, LEAVES)
    assert step == 7 and jax.tree.structure(again) == jax.tree.structure(LEAVES)
    for old, new in zip(jax.tree.leaves(LEAVES), jax.tree.leaves(again), strict=True):
        assert type(old) is type(new)
        if isinstance(old, jax.Array):
            assert (old.dtype, old.committed) == (new.dtype, new.committed)
            assert getattr(old, "weak_type", None) == getattr(new, "weak_type", None)
            as_data = jax.random.key_data if "key" in str(old.dtype) else np.asarray
            np.testing.assert_array_equal(as_data(old), as_data(new))
        else:
            assert np.array_equal(old, new)


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_restores_onto_another_sharding(axis_type, tmp_path):
    kind = getattr(jax.sharding.AxisType, axis_type)
    params = {"kernel": jnp.arange(64.0).reshape(8, 8), "bias": jnp.ones(4)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    tx = sj.sparsify(optax.adam(0.1), sj.one_shot(), plan, key=jax.random.key(0))
    _, opt_state = tx.update(params, tx.init(params), params)

    def on(num_devices):
        devices = jax.devices()[:num_devices]
        mesh = jax.make_mesh((num_devices,), ("x",), axis_types=(kind,), devices=devices)
        split = lambda leaf: NamedSharding(mesh, P("x") if leaf.ndim == 2 else P())
        return jax.tree.map(lambda leaf: jax.device_put(leaf, split(leaf)), (params, opt_state))

    whole = params, opt_state
    with sj.checkpoint(tmp_path, plan) as ckpt:
        ckpt.save(1, *whole)
        for step, target in enumerate((on(4), on(2), on(1), whole), 2):
            at, *found = ckpt.restore(*jax.tree.map(jnp.zeros_like, target))
            assert at == step - 1
            for leaf, other, old in zip(*map(jax.tree.leaves, (found, target, whole)), strict=True):
                np.testing.assert_array_equal(leaf, old)
                assert leaf.sharding == other.sharding and leaf.committed == other.committed
            ckpt.save(step, *found)  # as it lies there: the next restores from this sharding


TARGETS = {
    "shape": ({"kernel": jnp.ones((4, 5))}, r"0/kernel is float32\(4, 4\) in step 1 .*\(4, 5\)"),
    "dtype": ({"kernel": jnp.ones((4, 4), jnp.bfloat16)}, r"and bfloat16\(4, 4\) in the target"),
    "missing": ({}, "0/kernel is float32.* and not there in the target"),
    "foreign": ({"kernel": jnp.ones((4, 4)), "b": 1}, "0/b is not there in step 1 .* and int in"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_another_target_is_refused_by_leaf(case, tmp_path):
    target, message = TARGETS[case]
    with sj.checkpoint(tmp_path) as ckpt:
        ckpt.save(1, {"kernel": jnp.ones((4, 4))})
        with pytest.raises(
            ValueError, match=f"restore needs trees like the saved ones: .*{message}"
        ):
            ckpt.restore(target)


def test_each_step_has_its_turn(tmp_path):
    tree = {"a": jnp.zeros(2)}
    with sj.checkpoint(tmp_path, every=10, keep=2) as ckpt:
        assert ckpt.restore(tree) == (0, tree)
        assert [step for step in range(35) if ckpt.save(step, tree)] == [0, 10, 20, 30]
        assert not ckpt.save(30, tree, force=True), "it is there"
        assert ckpt.save(np.int64(34), {"a": jnp.ones(2)}, force=True)
        assert ckpt.steps == (30, 34)
        with pytest.raises(ValueError, match="save needs a step after 34, got 20"):
            ckpt.save(20, tree)
    with sj.checkpoint(tmp_path) as ckpt:
        with pytest.raises(ValueError, match=r"save needs .*step 34.* restored first; call"):
            ckpt.save(40, tree)
        with pytest.raises(ValueError, match=r"no step 20 in .*, only 30, 34; name one"):
            ckpt.restore(tree, step=20)
        step, found = ckpt.restore(tree, step=30)
        np.testing.assert_array_equal(found["a"], tree["a"])
        assert ckpt.save(step + 1, tree), "the steps after the restored one make room"
        assert ckpt.steps == (30, 31)


def test_errors_at_the_door(tmp_path):
    tree = {"a": np.ones(2)}
    with pytest.raises(ValueError, match="every and keep of at least 1, got 0 and 2"):
        sj.checkpoint(tmp_path, every=0)
    with sj.checkpoint(tmp_path) as ckpt:
        with pytest.raises(TypeError, match="numeric arrays, got dtype <U1 at 1/b"):
            ckpt.save(1, tree, {"b": np.array(["x"])})
        with pytest.raises(TypeError):
            ckpt.save(1.5, tree)
        with pytest.raises(TypeError, match="JSON"):
            ckpt.save(1, tree, notes={"a": np.ones(2)})
        assert ckpt.steps == ()
        ckpt.save(1, tree)
        with pytest.raises(ValueError, match=r"step 1 of .* has 1, got 2"):
            ckpt.restore(tree, tree)


def test_orbax_is_imported_by_those_who_use_it():
    for file in Path(sj.__file__).parent.rglob("*.py"):
        assert not re.search(r"^(import|from) orbax", file.read_text(), re.MULTILINE), file


@pytest.mark.parametrize("method", ["gmp", "movement"])
def test_flax_saves_the_state_as_msgpack(method):
    soft = cases.SOFT_METHODS[method].make() if method == "movement" else sj.gmp(0, 4, every=2)
    params = {"kernel": np.float32([[1.0, -2.0], [3.0, 0.5]]), "bias": np.ones(2, np.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.5)
    adam, key = optax.adam(0.1), jax.random.key(0)
    tx = sj.sparsify(adam, soft, plan, key=key, learned_tx=adam)

    @jax.jit
    def one_step(params, state):
        grads = cases.fake_grads(sj.forward(params, state), state.step)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = one_step(params, tx.init(params))
    restored = serialization.from_bytes(tx.init(params), serialization.to_bytes(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    chex.assert_trees_all_equal(one_step(params, state), one_step(params, restored))
