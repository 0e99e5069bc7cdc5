"""Derivatives of any order: those of every op are those of its reference, in either mode."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import sparsejax as sj

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(8, 6)).astype(np.float32) * (RNG.random((8, 6)) > 0.5)
CSR = jax.tree.map(jnp.asarray, sj.Unstructured().pack(WEIGHTS))
BCRC = jax.tree.map(jnp.asarray, sj.BlockColumnRow(2, 4).pack(WEIGHTS))


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def product(packed, **options):
    """Both functions of values, bias and x."""
    return tuple(
        lambda values, bias, x, f=f: f(replace(packed, values=values), x, bias, **options)
        for f in (sj.spmm, sj.ops.spmm_reference)
    )


def convolution(**options):
    return tuple(
        lambda kernel, bias, x, f=f: f(x, kernel, bias, **options)
        for f in (sj.depthwise_conv2d, sj.ops.depthwise_conv2d_reference)
    )


CASES = {
    "spmm": (*product(CSR, activation=jax.nn.relu), CSR.values, normal(6), normal(3, 8)),
    "spmm_planes": (*product(CSR, channels_last=False), CSR.values, normal(6), normal(2, 8, 3)),
    "bcr": (*product(BCRC), BCRC.values, normal(6), normal(3, 8)),
    "depthwise": (
        *convolution(strides=(2, 1), activation=jax.nn.relu),
        *(normal(3, 3, 1, 2), normal(2), normal(1, 4, 3, 2)),
    ),
}


def close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * (np.abs(b).max() + 1e-30))


def derivatives(f):
    """A tangent, gradients, and the Hessian times a direction: both ways, and of a batch."""

    def all_of(*operands):
        loss = lambda *operands: jnp.sum(jnp.sin(f(*operands)))
        gradient = jax.grad(loss, (0, 1, 2))
        along = lambda tree: sum(jnp.vdot(g, o) for g, o in zip(tree, operands, strict=True))
        batch = jnp.stack([operands[2], 2 * operands[2]])
        return (
            jax.jvp(f, operands, operands)[1],
            jax.jvp(gradient, operands, operands)[1],
            jax.grad(lambda *o: along(gradient(*o)), (0, 1, 2))(*operands),
            jax.vmap(gradient, (None, None, 0))(*operands[:2], batch),
            jax.grad(lambda v: jax.vmap(loss, (None, None, 0))(v, operands[1], batch).sum())(
                operands[0]
            ),
        )

    return all_of


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_the_reference(name):
    f, reference, *operands = CASES[name]
    close(jax.jit(derivatives(f))(*operands), jax.jit(derivatives(reference))(*operands))


@pytest.mark.parametrize("name", ["spmm", "depthwise"])
def test_no_dense_product_is_left_in_second_derivatives(name):
    f, _, *operands = CASES[name]
    loss = lambda *operands: jnp.sum(jnp.sin(f(*operands)))
    text = jax.jit(lambda *o: jax.jvp(jax.grad(loss, (0, 1, 2)), o, o)[1]).lower(*operands)
    assert "stablehlo.dot_general" not in text.as_text()
    assert "stablehlo.convolution" not in text.as_text()


def network(params, x):
    y = lax.conv_general_dilated(
        x,
        params["filters"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    return jnp.tanh(y).mean((1, 2)) @ params["head"]


PARAMS = {"filters": normal(3, 3, 1, 2), "head": normal(2, 2)}
IMAGES = normal(2, 4, 3, 2)


def square(apply):
    return lambda params, x: jnp.mean(apply(params, x) ** 2)


def gradient_penalty(apply):
    """The gradient of the norm of a gradient with regard to the images."""
    slope = jax.grad(square(apply), 1)
    return jax.grad(lambda params: jnp.sum(slope(params, IMAGES) ** 2))(PARAMS)


def one_inner_step(apply):
    """The gradient through a step of gradient descent, as MAML has it."""
    loss = square(apply)

    def after(params):
        step = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, IMAGES))
        return loss(step, 2 * IMAGES)

    return jax.grad(after)(PARAMS)


def grasp_masks(apply):
    plan = sj.plan(PARAMS, {"filters": sj.Unstructured()}, sparsity=0.5)
    masks = sj.before.grasp(square(apply), [IMAGES])
    tx = sj.sparsify(optax.sgd(0.1), sj.chain(), plan, key=jax.random.key(0), initial_masks=masks)
    return sj.masks_of(tx.init(PARAMS))["filters"].astype(jnp.float32)


@pytest.mark.parametrize("use", [gradient_penalty, one_inner_step, grasp_masks])
def test_second_derivatives_go_through_accelerate(use):
    close(jax.jit(lambda: use(sj.accelerate(network)))(), jax.jit(lambda: use(network))())


def test_second_derivatives_go_through_what_compile_returns():
    weights = WEIGHTS
    apply = lambda w, x: jnp.tanh(x @ w) @ w.T
    fast = sj.compile(apply, weights, jnp.ones((3, 8)), tune=False)
    x = normal(3, 8)
    hessian = lambda f: jax.jit(jax.hessian(lambda x: jnp.sum(f(x) ** 2)))(x)
    close(hessian(fast), hessian(lambda x: apply(weights, x)))
