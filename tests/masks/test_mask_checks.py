"""A state, a plan and masks that do not belong together are refused by the leaf's name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import sparsejax as sj
from sparsejax.masks import mask_checks
from tests import cases

SHAPES = {"body": {"kernel": (8, 4)}, "head": {"kernel": (4, 4)}, "norm": {"scale": (4,)}}
RULES = {"body": sj.Block(4, 1), "head": (sj.NM(2, 4), 0.5)}
OTHER_RULES = {
    "pattern": (
        RULES | {"body": sj.Unstructured()},
        r"body/kernel is Unstructured.* in the state and Block\(rows=4",
    ),
    "options": (RULES | {"body": sj.Block(4, 1, 0)}, "body/kernel is Block.*output_axis=0"),
    "sparsity": (
        RULES | {"head": (sj.NM(2, 4), 0.25)},
        r"head/kernel is NM\(.* at sparsity 0.25 in the state .* at sparsity 0.5 in the plan",
    ),
    "one_more": (RULES | {"norm": sj.Unstructured()}, "norm/scale is Uns.* and dense in the plan"),
    "one_less": ({"body": sj.Block(4, 1)}, "head/kernel is dense in the state and NM"),
}


def params_of(shapes=SHAPES):
    draw = np.random.default_rng(0)
    make = lambda shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
    return jax.tree.map(make, shapes, is_leaf=lambda node: isinstance(node, tuple))


def transform(rules=RULES, params=None):
    plan = sj.plan(params_of() if params is None else params, rules, sparsity=0.5)
    return plan, sj.sparsify(optax.sgd(0.1), sj.one_shot(), plan, key=jax.random.key(0))


@pytest.mark.parametrize("case", OTHER_RULES)
def test_update_refuses_the_state_of_another_plan(case):
    rules, message = OTHER_RULES[case]
    params = params_of()
    _, tx = transform()
    state = jax.eval_shape(transform(rules)[1].init, params)
    with pytest.raises(ValueError, match=rf"tx.update needs .*{message}.*; call tx.init"):
        jax.eval_shape(tx.update, params, state, params)


def test_update_refuses_other_shapes_and_takes_the_state_of_an_equal_plan():
    params = params_of()
    _, tx = transform()
    larger = params_of(SHAPES | {"head": {"kernel": (8, 4)}})
    state = jax.eval_shape(transform(params=larger)[1].init, larger)
    with pytest.raises(ValueError, match=r"head/kernel is .*\(8, 4\) at .* \(4, 4\) at"):
        jax.eval_shape(tx.update, params, state, params)
    jax.eval_shape(tx.update, params, jax.eval_shape(transform()[1].init, params), params)


@pytest.mark.parametrize("wrapper", ["chain", "multi_steps", "inject", "partition"])
def test_update_refuses_through_the_wrappers_of_optax(wrapper):
    params = params_of()

    def wrapped(rules):
        tx = transform(rules)[1]
        return {
            "chain": lambda: optax.chain(optax.identity(), tx),
            "multi_steps": lambda: optax.MultiSteps(tx, 2).gradient_transformation(),
            "inject": lambda: optax.inject_hyperparams(lambda rate: tx)(rate=0.1),
            "partition": lambda: optax.partition({0: tx}, jax.tree.map(lambda leaf: 0, params)),
        }[wrapper]()

    mine, other = wrapped(RULES), wrapped(OTHER_RULES["pattern"][0])
    state = jax.eval_shape(mine.init, params)
    jax.eval_shape(mine.update, params, state, params)
    with pytest.raises(ValueError, match="body/kernel is Unstructured"):
        jax.eval_shape(mine.update, params, jax.eval_shape(other.init, params), params)


def test_update_refuses_an_nnx_optimizer_with_the_state_of_another_plan():
    model = cases.NNX(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)

    def optimizer(pattern):
        plan = sj.plan(params, {"0/kernel": pattern}, sparsity=0.5)
        tx = sj.sparsify(optax.sgd(0.1), sj.chain(), plan, key=jax.random.key(0))
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    mine = optimizer(sj.Block(4, 1))
    mine.update(model, params)
    mine.opt_state = optimizer(sj.Unstructured()).opt_state
    with pytest.raises(ValueError, match=r"layers/0/kernel is Unstructured.* in the state"):
        mine.update(model, params)


MASKS = {
    "shape": (jnp.ones((4, 8), bool), r"body/kernel has a bool mask of shape \(4, 8\) .*\(8, 4\)"),
    "dtype": (jnp.ones((8, 4)), r"body/kernel has a float32 mask of shape \(8, 4\)"),
    "dense": (optax.MaskedNode(), "body/kernel has no mask in the state and a bool mask"),
}


@pytest.mark.parametrize("case", MASKS)
def test_update_refuses_masks_that_a_hand_has_changed(case):
    mask, message = MASKS[case]
    params = params_of()
    _, tx = transform()
    state = tx.init(params)
    changed = state._replace(masks=state.masks | {"body": {"kernel": mask}})
    with pytest.raises(ValueError, match=f"tx.update needs masks that fit its plan: {message}"):
        jax.eval_shape(tx.update, params, changed, params)
    one_more = state._replace(masks=state.masks | {"norm": {"scale": jnp.ones(4, bool)}})
    with pytest.raises(ValueError, match=r"norm/scale has a bool mask of .* and no mask in the"):
        jax.eval_shape(tx.update, params, one_more, params)


WAYS = {"box": sj.Block(4, 1), "nm": sj.NM(2, 4), "channel": sj.Channel()}


@pytest.mark.parametrize("way", WAYS)
def test_masks_of_a_pattern_pass_on_the_way_and_others_do_not_at_the_target(way):
    pattern = WAYS[way]
    leaf = dataclasses.replace(transform()[0].leaves[0], pattern=pattern)
    scores = jnp.abs(params_of()["body"]["kernel"])
    for share in (0.0, 0.5, 1.0):
        mask_checks.check_mask(leaf, pattern.mask(scores, share * leaf.sparsity))
    half = np.arange(32).reshape(8, 4) % 3 == 0  # 11 kept, in no order that a pattern knows
    with pytest.raises(ValueError, match=r"^body/kernel: (Block|NM|Channel)"):
        mask_checks.check_mask(leaf, half if way != "nm" else np.arange(32).reshape(8, 4) < 16)


def test_a_state_under_a_plan_of_another_pattern_is_found_by_value():
    params = params_of()
    plan, _ = transform()
    _, other = transform(RULES | {"body": sj.Unstructured()})
    masks = sj.masks_of(other.update(params, other.init(params), params)[1])
    mask_checks.check_layout(masks, plan, asker="law", hint="none")
    with pytest.raises(ValueError, match=r"^body/kernel: Block\(4, 1\) needs each group"):
        mask_checks.check_masks(masks, plan)
