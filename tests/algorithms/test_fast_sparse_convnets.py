"""Fast Sparse ConvNets: its schedule, its denominators and its choice of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen


def test_blocks_are_chosen_at_nine_tenths_exactly():
    mask = np.zeros((10, 8), bool)
    mask[:, :4] = True  # ten blocks of 4, all full
    mask[:4, 3] = False  # 36 of 40: exactly nine tenths
    assert sj.pruning.block_rows(mask) == 4
    mask[:4, 2] = False  # 32 of 40 in fours, but 16 full blocks of two
    assert sj.pruning.block_rows(mask) == 2
    mask[5:9, 0] = False  # 28 of 32
    assert sj.pruning.block_rows(mask) == 1
    assert sj.pruning.block_rows(mask.T, output_axis=0) == 1


def test_leftover_channels_do_not_count():
    mask = np.zeros((3, 5), bool)
    mask[:, :4] = True
    mask[0, 4] = True
    assert sj.pruning.block_rows(mask) == 4
    assert sj.pruning.block_rows(np.zeros((3, 5), bool)) == 1


def test_ninety_percent_of_the_1x1_weights_are_two_thirds_of_the_network():
    """Why 68.4 % at "90 %" must not be compared with 90 % of all weights."""
    model = MobileNetV1Linen(num_classes=1000)
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )["params"]
    plan = sj.plan(params, {"pointwise/kernel": sj.Unstructured()}, sparsity=0.9)
    kernels = [leaf for path, leaf in sj.tree.leaves_with_paths(params) if path.endswith("kernel")]
    total = sum(leaf.size for leaf in kernels)
    assert (plan.num_weights, total) == (3_139_584, 4_209_088)
    assert (total - plan.num_pruned) / total == pytest.approx(0.3287, abs=1e-4)


def test_prunes_between_a_tenth_and_seven_tenths_of_the_steps():
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(20, 10)), jnp.float32)}
    plan = sj.plan(params, {"kernel": sj.Unstructured()}, sparsity=0.9)
    method = sj.pruning.fast_sparse_convnets(50)

    def one_step(masks, step):
        context = sj.masks.MaskContext(plan, step, jax.random.key(0))
        masks, _ = method.update(masks, (), params, params, context)
        return masks, (~masks["kernel"]).sum()

    run = lambda masks: jax.lax.scan(one_step, masks, jnp.arange(50))[1]
    pruned = jax.jit(run)(sj.masks.full_masks(params, plan))
    assert pruned[5] == 0 < pruned[6] and pruned[30] < 180 == pruned[35] == pruned[-1]


def test_too_few_steps():
    with pytest.raises(ValueError, match="at least 10 steps, got 9"):
        sj.pruning.fast_sparse_convnets(9)
