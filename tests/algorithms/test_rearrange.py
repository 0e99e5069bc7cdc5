"""Channels in another order change nothing, and groups of them then prune better."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models import networks
from experiments.models.mobilenet_v1 import MobileNetV1, shifted_depthwise
from experiments.models.mobilenet_v2 import MobileNetV2
from experiments.settings.train import built


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


NETS = {
    "mobilenet_v1": lambda r: MobileNetV1(
        num_classes=8, width=0.25, depthwise=shifted_depthwise, rngs=r
    ),
    "mobilenet_v2": lambda r: MobileNetV2(num_classes=8, width=0.35, rngs=r),
    "resnet_20": lambda r: networks.resnet20((14, 14, 3), 8, 0),
}


@pytest.mark.parametrize("name", NETS)
def test_rearranging_a_network_changes_nothing_and_prunes_better(name):
    network = built(lambda: NETS[name](nnx.Rngs(0)))

    def noisy(leaf):
        leaf = np.asarray(leaf)
        return (leaf + 0.1 * (leaf.ndim == 1)) * np.exp(0.3 * normal(*leaf.shape, seed=1))

    variables = jax.tree.map(noisy, (network.params, network.statistics))
    x = normal(2, 14, 14, 3)
    blocks = {
        path: pattern
        for path, pattern in sj.structured.operator_patterns(
            variables, rows=(8, 4), kernels=(4,)
        ).items()
        if any(part in path for part in ("pointwise", "expand", "project", "conv1", "conv2"))
    }
    plan = sj.plan(variables, blocks, sparsity=0.5)
    moved = sj.structured.rearrange(network.apply, variables, plan, x)
    apply = jax.jit(network.apply)
    before, after = apply(variables, x), apply(moved, x)
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    assert kept(moved, plan) > 1.01 * kept(variables, plan)
    changed = jax.tree.leaves(jax.tree.map(lambda a, b: not np.array_equal(a, b), variables, moved))
    assert sum(changed) > 20


def kept(variables, plan):
    """The mean share of a leaf's magnitude that the best groups hold, as many as the plan keeps."""
    arrays = dict(sj.tree.leaves_with_paths(variables))

    def share(leaf):
        groups = np.sort(leaf.pattern.group_scores(np.abs(arrays[leaf.path])), axis=None)
        return groups[leaf.num_pruned // leaf.group_size :].sum() / groups.sum()

    return np.mean([share(leaf) for leaf in plan.leaves])


def test_two_interleaved_groups_by_hand():
    # outputs 0 and 2 use input 0, outputs 1 and 3 use input 1
    first = np.array([[5, 0, 4, 0], [0, 3, 0, 2]], np.float32)
    params = {"a": first, "b": np.eye(4, dtype=np.float32)}
    f = lambda p, x: x @ p["a"] @ p["b"]
    plan = sj.plan(params, {"^a$": sj.Block(2, 1)}, sparsity=0.5)
    moved = sj.structured.rearrange(f, params, plan, np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(moved["a"], [[5, 4, 0, 0], [0, 0, 3, 2]])
    np.testing.assert_array_equal(moved["b"], np.eye(4)[[0, 2, 1, 3]])
    again = sj.structured.rearrange(f, moved, plan, np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(again["a"], moved["a"])


def test_operators_get_their_patterns():
    shapes = {
        "pointwise": (1, 1, 8, 32),
        "dense": (8, 24),
        "conv": (3, 3, 8, 16),
        "narrow": (3, 3, 8, 4),
        "depthwise": (3, 3, 1, 16),
        "odd": (8, 7),
        "bias": (16,),
    }
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    assert sj.structured.operator_patterns(params) == {
        "^pointwise$": sj.Block(16, 1),
        "^dense$": sj.Block(8, 1),
        "^conv$": sj.KernelGroup(8),
        "^narrow$": sj.KernelGroup(4),
    }
    sj.plan(params, sj.structured.operator_patterns(params), sparsity=0.3)


def test_kernel_groups_by_hand():
    scores = jnp.arange(16.0).reshape(2, 1, 2, 4)  # sums of kernel pairs: 10 18 / 26 34 ...
    mask = sj.KernelGroup(2).mask(scores, 0.5)
    sums = sj.KernelGroup(2).group_scores(scores)
    assert sums.ravel().tolist() == [18.0, 26.0, 34.0, 42.0]
    np.testing.assert_array_equal(mask, np.broadcast_to([[[False] * 4, [True] * 4]], (2, 1, 2, 4)))
    packed = sj.KernelGroup(2).pack(np.asarray(scores), mask)
    assert isinstance(packed, sj.patterns.BSR) and packed.block == (2, 1)
    np.testing.assert_array_equal(packed.todense(), np.where(mask, scores, 0))
    one = sj.Block(4, 1).mask(jnp.arange(64.0).reshape(1, 1, 8, 8), 0.3)
    np.testing.assert_array_equal(
        sj.KernelGroup(4).mask(jnp.arange(64.0).reshape(1, 1, 8, 8), 0.3), one
    )


ERRORS = {
    "outputs": (lambda: sj.KernelGroup(0), "at least 1 output"),
    "shape": (lambda: sj.KernelGroup(4).validate((3, 3, 4, 6), "w"), "^w: KernelGroup.*of 4, got"),
    "axes": (lambda: sj.KernelGroup(4).validate((8,), "w"), "needs axes"),
    "same_axis": (lambda: sj.KernelGroup(4, 1, -1).validate((3, 8)), r"needs axes \(1, -1\)"),
    "mask": (lambda: sj.KernelGroup(2).check(np.eye(4, dtype=bool)), "4 of 8 groups in between"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_who_what_and_got(error):
    make, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        make()
