"""A call of each public function that can be traced, on tiny arrays, for the laws of modes."""

import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj
from tests import cases
from tests.project.test_public import public

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32)
PARAMS = {"body": {"kernel": jnp.asarray(RNG.normal(size=(4, 8)), jnp.float32)}}
PARAMS |= {"head": {"kernel": jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)}}
KERNEL = PARAMS["body"]["kernel"]
CONV = {"kernel": jnp.asarray(RNG.normal(size=(3, 3, 2, 4)), jnp.float32)}
FILTERS = jnp.ones((3, 3, 1, 2))
IMAGE = jnp.asarray(RNG.normal(size=(1, 3, 3, 2)), jnp.float32)


def planned(pattern, params=PARAMS):
    return sj.plan(params, {"body|^kernel": pattern}, sparsity=0.5)


PLAN = planned(sj.Unstructured())
BOTH = sj.plan(PARAMS, {"kernel": sj.Unstructured()}, sparsity=0.5)
BLOCKS = planned(sj.Block(4, 1))
MASKS = {"body": {"kernel": jnp.arange(32).reshape(4, 8) % 2 > 0}, "head": {"kernel": True}}
MASKS["head"]["kernel"] = optax.MaskedNode()
KEY = jax.random.key_data(jax.random.key(0))


def unheard(total):
    """What a debug callback does."""


def apply(params, x):
    """A model that has an effect, as has every function that this table hands over."""
    jax.debug.callback(unheard, x.sum())
    return jax.nn.relu(x @ params["body"]["kernel"]) @ params["head"]["kernel"]


def loss(params, x):
    return jnp.sum(apply(params, x) ** 2)


def loud(weights, grads, key):
    """A score that has an effect."""
    jax.debug.callback(unheard, weights.sum())
    return sj.scores.magnitude(weights, grads, key)


GROUPS = sj.channel_groups(apply, PARAMS, X)
COSTS = sj.search.PathCosts(((1.0, 3.0),), 0.5, "modelled by hand")


def gated(alphas):
    """The value of an edge of two paths, and its gradient for alphas, at some cost."""
    paths = [lambda params, x: apply(params, x), lambda params, x: x]

    def total(alphas):
        gate = sj.search.sample_gate(KEY, alphas, num_candidates=2)
        y = sj.search.one_path(paths, alphas, gate, PARAMS, X)
        term = sj.search.times_log_cost(4.0, scale=1.0)
        return term(jnp.sum(y**2), COSTS.expected([alphas], [gate]))

    value, grad = jax.value_and_grad(total)(alphas)
    return value, sj.search.keep_others(alphas - grad, alphas, np.arange(2, dtype=np.int32))


class Call(NamedTuple):
    """A function of arrays, as a user would call it, and the arrays."""

    run: Callable[..., Any]
    args: tuple[Any, ...] = (PARAMS,)


def training(make, plan=PLAN, *, params=PARAMS, num_steps=1, **options) -> Call:
    """Steps of a method, and all that a loop asks of its state."""

    def run(params):
        tx = sj.sparsify(optax.sgd(0.1), make(), plan, key=KEY, **options)
        state = tx.init(params)
        for step in range(num_steps):
            forward = sj.forward(params, state)
            updates, state = tx.update(cases.fake_grads(forward, step), state, params)
            params = optax.apply_updates(params, updates)
        return sj.harden(params, state), sj.effective(params, state), sj.masks_of(state)

    return Call(run, (params,))


def quantized(make) -> Call:
    learned_tx = optax.sgd(0.1)
    return training(lambda: sj.gmp(0, 1, every=1), reparam=make(), learned_tx=learned_tx)


def stepped(make, params=PARAMS) -> Call:
    """A step of an optax transform that is no sparsify."""

    def run(params):
        tx = make()
        return tx.update(params, tx.init(params), params)[0]

    return Call(run, (params,))


def penalised(penalty) -> Call:
    return stepped(lambda: sj.add_penalty(penalty, 0.1, scalars_optimizer=optax.sgd(0.1)))


def initial(make, plan=PLAN) -> Call:
    return Call(lambda params: make()(params, plan))


def pattern(made, sparsity) -> Call:
    """The pattern's mask and group scores, and its packed leaf: a structure that is known."""
    leaf = KERNEL if _fits(made, KERNEL.shape) else CONV["kernel"]
    packed = jax.tree.map(jnp.asarray, made.pack(leaf, np.asarray(made.mask(leaf, sparsity))))

    def run(weights):
        allowed = weights > -1.0
        mask = made.mask(weights, jnp.asarray(0.4, jnp.float32), keep=weights > 1, allowed=allowed)
        return mask, made.group_scores(weights), packed.gather(weights).todense()

    return Call(run, (leaf,))


def _fits(made, shape) -> bool:
    try:
        made.validate(shape)
    except ValueError:
        return False
    return True


def reloaded():
    """A function that was saved, from its file; a file holds no callback."""
    fast = sj.compile(lambda params, x: x @ params["body"]["kernel"], PARAMS, X, tune=False)
    with tempfile.TemporaryDirectory() as folder:
        sj.save(fast, f"{folder}/net")
        return sj.load(f"{folder}/net")


half = lambda step: jnp.asarray(0.5, jnp.float32)
regrown = lambda: sj.chain(sj.drop(loud, half), sj.grow(sj.scores.gradient))
STARTED = {"initial_masks": sj.masks.masks_from_scores(PARAMS)}
UNIFIED = planned(sj.KernelPattern(), CONV)
PACKED = jax.tree.map(jnp.asarray, sj.Unstructured().pack(KERNEL, np.asarray(KERNEL) > 0))
LEARNED_TX = optax.sgd(0.1)
measures = {
    "flow_magnitude": sj.before.flow_magnitude,
    "flow_loss": lambda: sj.before.flow_loss(loss, [X]),
    "flow_biased_loss": lambda: sj.before.flow_biased_loss(loss, [X]),
    "flow_gradient_norm": lambda: sj.before.flow_gradient_norm(loss, [X]),
    "flow_gradient_preserving": lambda: sj.before.flow_gradient_preserving(loss, [X]),
}

FROM_CASES = {
    **{
        name: training(lambda method=method: method.transform)
        for name, method in cases.METHODS.items()
    },
    **{name: training(method.make) for name, method in cases.SOFT_METHODS.items()},
    **{name: quantized(quantizer.make) for name, quantizer in cases.QUANTIZERS.items()},
    **{type(made).__name__: pattern(made, sparsity) for made, sparsity in cases.PATTERNS.values()},
}
# What may be traced: by public name, "/" and what tells two calls of one name apart. A method whose
# row in cases.py has its public name needs none here, nor does a pattern of that file.
TRACED = {
    **{name: call for name, call in FROM_CASES.items() if name in public()},
    "gmp": training(lambda: sj.gmp(0, 2, every=2, score=loud), num_steps=2),
    "gmp/blocks": training(lambda: sj.gmp(0, 1, every=1), BLOCKS),
    "gmp/n_of_m": training(lambda: sj.gmp(0, 1, every=1), planned(sj.NM(2, 4))),
    "rigl": training(lambda: sj.rigl(9, every=1), num_steps=2),
    "rigl/n_of_m": training(lambda: sj.rigl(9, every=1), planned(sj.NM(2, 4))),
    "ac_dc": training(lambda: sj.pruning.ac_dc(0, 9, phase=1)),
    "ac_dc/local": training(lambda: sj.pruning.ac_dc(0, 9, phase=1, globally=False)),
    "gap": training(lambda: sj.sparse_training.gap(2, every=1), BOTH),
    "global_mp": training(lambda: sj.global_mp(0, 1, min_weights=4)),
    "mest_ems": training(lambda: sj.sparse_training.mest_ems((1, 2), every=1)),
    "fast_sparse_convnets": training(lambda: sj.pruning.fast_sparse_convnets(10)),
    "prune/global": training(lambda: sj.prune(loud, half, globally=True)),
    "movement": training(lambda: sj.soft.movement(0, 1), learned_tx=LEARNED_TX),
    "soft_movement": training(lambda: sj.soft.soft_movement(0, 1), learned_tx=LEARNED_TX),
    "str_": training(lambda: sj.soft.str_(initial=-0.5), learned_tx=LEARNED_TX),
    "pdp": training(lambda: sj.soft.pdp(0, 1, temperature=0.1)),
    "pdp/local": training(lambda: sj.soft.pdp(0, 1, temperature=0.1, globally=False)),
    "sr_ste": training(lambda: sj.soft.sr_ste(), planned(sj.NM(2, 4))),
    **{
        name: training(lambda make=make: sj.before.gradient_flow(make(), every=1))
        for name, make in measures.items()
    },
    "chain": training(regrown, **STARTED),
    "every": training(lambda: sj.every(1, regrown(), end=9), **STARTED),
    "prune": training(lambda: sj.prune(loud, sj.schedules.cubic(0, 2), regrow=True)),
    "prune_channels": training(
        lambda: sj.structured.prune_channels(GROUPS, half, score=loud), planned(sj.Channel())
    ),
    "resize": training(lambda: sj.resize(loud, half)),
    "start": training(lambda: sj.start(loud)),
    "straight_through": training(
        lambda: sj.masks.Method(sj.gmp(0, 1, every=1, regrow=True), sj.soft.straight_through())
    ),
    "chain_reparams": quantized(
        lambda: sj.soft.chain_reparams(
            sj.soft.straight_through(), sj.quantizers.symmetric_quantizer(2)
        )
    ),
    "tied_blocks": training(
        lambda: sj.one_shot(0), UNIFIED, params=CONV, reparam=sj.structured.tied_blocks(0.5)
    ),
    "symmetric_quantizer": quantized(lambda: sj.quantizers.symmetric_quantizer(2, axis=-1)),
    "asymmetric_quantizer": quantized(lambda: sj.quantizers.asymmetric_quantizer(2)),
    "dorefa": quantized(lambda: sj.quantizers.dorefa(2)),
    "dorefa/one_bit": quantized(lambda: sj.quantizers.dorefa(1)),
    "dkm": quantized(lambda: sj.quantizers.dkm(1, num_iterations=1)),
    "quantized": Call(
        lambda params: sj.quantizers.quantized(params, PLAN, sj.quantizers.symmetric_quantizer(2))
    ),
    "pact": Call(lambda x: sj.quantizers.pact(x, jnp.float32(1.0), bits=2), (X,)),
    "admm": stepped(lambda: sj.structured.admm(sj.structured.onto_patterns(PLAN), every=1)),
    "onto_unified": stepped(
        lambda: sj.structured.admm(sj.structured.onto_unified(UNIFIED, fraction=0.5), every=1), CONV
    ),
    "reweighted": stepped(lambda: sj.structured.reweighted(PLAN, 0.1, every=1)),
    "linf": penalised(sj.linf()),
    "margin": penalised(sj.margin()),
    "soft_min_max": penalised(sj.soft_min_max()),
    "kure": penalised(sj.penalties.kure()),
    "group_lasso": penalised(sj.penalties.group_lasso()),
    "full_masks": initial(lambda: sj.masks.full_masks),
    "masks_from_zeros": initial(lambda: sj.masks.masks_from_zeros),
    "masks_from_scores": initial(lambda: sj.masks.masks_from_scores(PARAMS)),
    "masked": Call(lambda params: sj.masked(params, MASKS)),
    "grown_part": Call(lambda params: sj.sparse_training.grown_part(1, 2)(params, BOTH)),
    "combine_parts": Call(
        lambda params: sj.sparse_training.combine_parts(
            jax.tree.map(lambda x: jnp.stack([x, -x]), params), BOTH, 2
        )
    ),
    "magnitude_overlap": Call(lambda params: sj.studies.magnitude_overlap(params, PARAMS, PLAN)),
    "lottery_ticket": Call(
        lambda params: sj.studies.lottery_ticket(
            lambda masks: sj.masked(params, masks), params, PLAN, rounds=2
        )
    ),
    "magnitude": Call(lambda w: sj.scores.magnitude(w, None, KEY), (KERNEL,)),
    "gradient": Call(lambda w: sj.scores.gradient(None, w, KEY), (KERNEL,)),
    "saliency": Call(lambda w: sj.scores.saliency(w, w, KEY), (KERNEL,)),
    "random": Call(lambda w: sj.scores.random(w, None, KEY), (KERNEL,)),
    "cosine_decay": Call(lambda step: sj.schedules.cosine_decay(0.3, 4)(step), (jnp.int32(2),)),
    "cubic": Call(lambda step: sj.schedules.cubic(0, 4)(step), (jnp.int32(2),)),
    "spmm": Call(lambda x: sj.spmm(PACKED, x), (X,)),
    "spmm_reference": Call(lambda x: sj.ops.spmm_reference(PACKED, x), (X,)),
    "depthwise_conv2d": Call(lambda x: sj.depthwise_conv2d(x, FILTERS), (IMAGE,)),
    "depthwise_conv2d_reference": Call(
        lambda x: sj.ops.depthwise_conv2d_reference(x, FILTERS), (IMAGE,)
    ),
    "accelerate": Call(
        sj.accelerate(
            lambda x: jax.lax.conv_general_dilated(
                x + 0 * loss(PARAMS, X),
                *(FILTERS, (1, 1), "SAME"),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=2,
            )
        ),
        (IMAGE,),
    ),
    "zeroed_moments": Call(lambda x: sj.training.zeroed_moments(x * x, x > 0), (X,)),
    "decaying_moments": Call(lambda x: sj.training.decaying_moments(x * x, x > 0), (X,)),
    "averaged_moments": Call(lambda x: sj.training.averaged_moments(x * x, x > 0), (X,)),
    "soft_cross_entropy": Call(lambda x: sj.distill.soft_cross_entropy(x, -x), (X,)),
    "distillation_loss": Call(
        lambda x: sj.distill.distillation_loss(x, -x, np.arange(2, dtype=np.int32)), (X,)
    ),
    "dual_view_loss": Call(lambda x: sj.distill.dual_view_loss(x, -x), (IMAGE,)),
    "weighted_average": Call(
        lambda x: sj.federated.weighted_average({"w": x}, np.array([1, 3], np.int32)), (X,)
    ),
    "one_path": Call(gated, (jnp.asarray([0.5, -0.5]),)),
    "plus_cost": Call(lambda x: sj.search.plus_cost(4.0)(x, x), (X,)),
    "l1": Call(lambda x: sj.activations.l1({"relu": jax.nn.relu(x)}, 0.5), (X,)),
    "with_maps": Call(
        lambda x: sj.activations.with_maps(lambda x: sj.activations.tap(x, "own").sum())(x), (X,)
    ),
    "quantize": Call(
        lambda x: sj.activations.dequantize(sj.activations.quantize(jax.nn.relu(x))), (X,)
    ),
    "compile": Call(lambda x: sj.compile(apply, PARAMS, X, tune=False)(x), (X,)),
    "load": Call(lambda x: reloaded()(x), (X,)),
}
