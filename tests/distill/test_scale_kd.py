"""Distillation: its losses by hand, the projector by an oracle, and a masked student."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import fft, special

import sparsejax as sj

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.normal(size=(3, 4, 2, 5)).astype(np.float32) for _ in range(2))


def unit(maps):
    return maps / np.linalg.norm(maps, axis=-1, keepdims=True)


def without_constant_term(maps):
    terms = fft.dctn(maps.astype(np.float64), axes=(1, 2))
    terms[:, 0, 0] = 0
    return fft.idctn(terms, axes=(1, 2))


def test_the_two_views_are_the_maps_and_their_transform_without_its_constant():
    expected = [
        strength * np.square(unit(view(STUDENT)) - unit(view(TEACHER))).sum((1, 2, 3)).mean()
        for strength, view in ((0.5, lambda maps: maps), (0.25, without_constant_term))
    ]
    found = jax.jit(lambda s, t: sj.distill.dual_view_loss(s, t, strengths=(0.5, 0.25)))(
        STUDENT, TEACHER
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_two_pixels_by_hand():
    student = jnp.array([[3.0, 4.0], [0.0, 2.0]]).reshape(1, 1, 2, 2)
    teacher = jnp.array([[0.0, 1.0], [0.0, 5.0]]).reshape(1, 1, 2, 2)
    # Units (.6, .8) and (0, 1): .36 + .04; the second pixel is equal. Without the means the student
    # has +-(1.5, 1), the teacher +-(0, -2): each pixel adds 2 + 2 * 1 / sqrt(3.25).
    spatial, frequency = sj.distill.dual_view_loss(student, teacher, strengths=(1.0, 1.0))
    np.testing.assert_allclose(spatial, 0.4, rtol=1e-6)
    np.testing.assert_allclose(frequency, 2 * (2 + 2 / np.sqrt(3.25)), rtol=1e-6)


def test_constant_maps_have_finite_losses_and_gradients():
    loss = lambda s: sum(sj.distill.dual_view_loss(s, jnp.ones((1, 2, 2, 3))))
    loss_and_grads = jax.jit(jax.value_and_grad(loss))
    for maps in (np.zeros((1, 2, 2, 3), np.float32), np.ones((1, 2, 2, 3), np.float32)):
        value, grads = loss_and_grads(maps)
        assert np.isfinite(value) and np.isfinite(grads).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_soft_loss_has_the_gradient_of_the_divergence(temperature):
    logits = RNG.normal(size=(2, 6, 10))
    student, teacher = logits.astype(np.float32)
    value, grads = jax.value_and_grad(
        lambda s, t: sj.distill.soft_cross_entropy(s, t, temperature=temperature), (0, 1)
    )(student, teacher)
    own, wanted = (special.log_softmax(x / temperature, axis=-1) for x in logits)
    expected = -(np.exp(wanted) * own).sum(-1).mean() * temperature**2
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    slope = temperature * (np.exp(own) - np.exp(wanted)) / len(own)
    np.testing.assert_allclose(grads[0], slope, atol=1e-6)
    assert not np.asarray(grads[1]).any()


def test_labels_and_teacher_share_the_loss():
    student, teacher = (RNG.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    labels = jnp.array([0, 2, 1, 1])
    targets = np.eye(3)[np.asarray(labels)] * 0.7 + 0.1
    hard = -(targets * special.log_softmax(student, axis=-1)).sum(-1).mean()
    loss = lambda fraction: sj.distill.distillation_loss(
        student, teacher, labels, fraction=fraction, label_smoothing=0.3
    )
    soft = sj.distill.soft_cross_entropy(student, teacher)
    np.testing.assert_allclose(loss(0.0), hard, rtol=1e-5)
    np.testing.assert_allclose(loss(1.0), soft, rtol=1e-6)
    np.testing.assert_allclose(loss(0.25), 0.75 * hard + 0.25 * soft, rtol=1e-5)


def test_the_projector_is_its_formula():
    projector = sj.distill.CrossAttentionProjector(3, 4, grid=(2, 2), num_heads=2, rngs=nnx.Rngs(0))
    projector.eval()
    x = RNG.normal(size=(2, 2, 2, 3)).astype(np.float32)
    dense = lambda layer, y: y @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    kernel = np.asarray(projector.conv.kernel[...], np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    pixels = np.zeros((2, 2, 2, 3))
    for i in range(3):
        for j in range(3):
            pixels += padded[:, i : i + 2, j : j + 2] @ kernel[i, j]
    pixels = np.maximum(pixels / np.sqrt(1 + 1e-5), 0) + np.asarray(projector.positions[...])
    pixels = pixels.reshape(2, 4, 3)
    query = np.maximum(dense(projector.from_query, np.asarray(projector.query[...])), 0)
    queries = dense(projector.to_queries, query)
    keys, values = dense(projector.to_keys, pixels), dense(projector.to_values, pixels)
    tokens = np.zeros((2, 4, 4))
    for head in (slice(0, 2), slice(2, 4)):
        logits = 5 / np.sqrt(2) * np.einsum("qc,bkc->bqk", queries[:, head], keys[..., head])
        tokens[..., head] = special.softmax(logits, axis=-1) @ values[..., head]
    tokens = dense(projector.to_tokens, tokens)
    tokens -= tokens.mean(-1, keepdims=True)
    tokens /= np.sqrt(np.square(tokens).mean(-1, keepdims=True) + 1e-5)
    expected = tokens + dense(projector.narrow, np.maximum(dense(projector.widen, tokens), 0))
    given = np.broadcast_to(projector.query[...], (2, 4, 4))
    found, asked = jax.jit(lambda x: (projector(x), projector(x, given)))(x)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(asked, found, rtol=1e-5, atol=1e-6)


def tail_of(weights):
    """A teacher's last stage: the mean of each 2 x 2 pixels, a product, tanh."""

    def tail(tokens):
        maps = tokens.reshape(len(tokens), 2, 2, 2, 2, -1).mean((2, 4))
        return jnp.tanh(maps @ weights)

    return tail


MAPS = (
    tuple(RNG.normal(size=shape).astype(np.float32) for shape in ((2, 4, 4, 4), (2, 2, 2, 6))),
    tuple(RNG.normal(size=shape).astype(np.float32) for shape in ((2, 4, 4, 8), (2, 2, 2, 4))),
)


WEIGHTS = jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)
TAIL = tail_of(WEIGHTS)


@functools.cache
def losses_of(tail):
    make = lambda: sj.distill.ScaleKD(
        *((4, 6), (8, 4)),
        grids=((4, 4), (2, 2)),
        num_heads=(2, 2),
        teacher_tail=tail,
        rngs=nnx.Rngs(3),
    )
    module = nnx.jit(make)()  # as one program
    module.eval()
    return module


def test_the_teacher_s_last_stage_is_perceived_and_its_output_asks():
    module = losses_of(TAIL)
    assert module.late_spatial.query is None and module.early_spatial.query is not None

    @nnx.jit
    def parts(module, student, teacher):
        early = TAIL(module.early_spatial(student[0]))
        query = TAIL(module.early_frequency(student[0])).reshape(2, 4, 4)
        late = module.late_frequency(student[1], query).reshape(2, 2, 2, 4)
        expected = [sj.distill.dual_view_loss(maps, teacher[1]) for maps in (early, late)]
        grads = nnx.grad(lambda m: m(student, teacher).late_spatial)(module)
        return module(student, teacher), expected, grads

    losses, (early, late), grads = parts(module, *MAPS)
    np.testing.assert_allclose(losses.early_spatial, early[0], rtol=1e-4)
    np.testing.assert_allclose(losses.late_frequency, late[1], rtol=1e-4)
    np.testing.assert_allclose(losses.total, sum(losses), rtol=1e-6)
    # The late loss reaches the early projector of its view through the queries.
    assert np.abs(np.asarray(grads["early_spatial"]["conv"]["kernel"][...])).max() > 0
    assert not np.asarray(grads["early_frequency"]["conv"]["kernel"][...]).any()


def test_without_a_tail_each_stage_has_its_own_target():
    @nnx.jit
    def parts(module, student, teacher):
        early = module.early_frequency(student[0]).reshape(2, 4, 4, 8)
        return module(student, teacher), sj.distill.dual_view_loss(early, teacher[0])

    losses, expected = parts(losses_of(None), *MAPS)
    np.testing.assert_allclose(losses.early_frequency, expected[1], rtol=1e-4)


def test_a_masked_student_learns_and_is_deployed_alone():
    class Student(nnx.Module):
        def __init__(self, *, rngs):
            self.early = nnx.Conv(1, 4, (3, 3), 2, rngs=rngs)
            self.late = nnx.Conv(4, 6, (3, 3), 2, rngs=rngs)

        def __call__(self, x):
            early = nnx.relu(self.early(x))
            return early, nnx.relu(self.late(early))

    images = jnp.asarray(RNG.normal(size=(2, 8, 8, 1)), jnp.float32)
    both = {"student": Student(rngs=nnx.Rngs(0)), "features": losses_of(None)}
    graph, params, rest = nnx.split(both, nnx.Param, ...)
    plan = sj.plan(params, {"student/.*/kernel": sj.Unstructured()}, sparsity=0.75)
    tx = sj.sparsify(optax.adamw(1e-2), sj.one_shot(0), plan, key=jax.random.key(0))

    def loss(params):
        both = nnx.merge(graph, params, rest, copy=True)
        return both["features"](both["student"](images), MAPS[1]).total

    @jax.jit
    def step(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state, values = jax.jit(tx.init)(params), []
    for _ in range(8):
        params, opt_state, value = step(params, opt_state)
        values.append(float(value))
    assert values[-1] < values[1]  # the first is of the dense student
    for layer in ("early", "late"):
        weights = np.asarray(params["student"][layer]["kernel"][...])
        assert (weights == 0).sum() == round(0.75 * weights.size)
    assert {leaf.path.split("/")[0] for leaf in plan.leaves} == {"student"}


def test_linen_has_the_same_module():
    module = nnx.bridge.ToLinen(
        sj.distill.CrossAttentionProjector, args=(3, 4), kwargs={"grid": (2, 2), "num_heads": 2}
    )
    x = jnp.ones((2, 2, 2, 3))
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert variables["params"]["conv"]["kernel"].shape == (3, 3, 3, 3)


ERRORS = {
    "heads": (
        lambda: sj.distill.CrossAttentionProjector(3, 4, grid=(2, 2), num_heads=3, rngs=nnx.Rngs()),
        "in multiples of num_heads=3, got 4",
    ),
    "shapes": (
        lambda: sj.distill.dual_view_loss(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 4))),
        "of one shape, got .*; project the student's features",
    ),
    "temperature": (
        lambda: sj.distill.soft_cross_entropy(jnp.ones(3), jnp.ones(3), temperature=0.0),
        "a temperature above 0, got 0.0",
    ),
    "grid": (
        lambda: losses_of(None).early_spatial(np.ones((1, 3, 4, 4), np.float32)),
        r"needs maps of \(4, 4\), got shape \(1, 3, 4, 4\)",
    ),
    "teacher": (
        lambda: losses_of(None)(MAPS[0], (MAPS[1][1], MAPS[1][1])),
        "needs the teacher's maps in the shape",
    ),
    "query": (
        lambda: losses_of(TAIL).late_spatial(MAPS[0][1]),
        "no query of its own",
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_errors_say_what_is_needed(error):
    make, message = ERRORS[error]
    with pytest.raises(ValueError, match=message):
        make()
