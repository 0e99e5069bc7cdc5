"""The tables that the law tests run over: a new algorithm, pattern or optimizer is one row here."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

import sparsejax as sj
from sparsejax import tree

NUM_STEPS = 12


class Method(NamedTuple):
    """An algorithm, and the sparsity it must have after the update of a step, as a share of the
    target; `drops_only` says that a pruned weight never comes back."""

    transform: sj.masks.MaskTransform
    share: Callable[[int], float]
    drops_only: bool
    draws: bool = False


def _cubic_share(begin: int, end: int, every: int) -> Callable[[int], float]:
    def share(step: int) -> float:
        if step < begin:
            return 0.0
        last = end if step >= end else begin + (step - begin) // every * every
        return 1.0 - (1.0 - (last - begin) / (end - begin)) ** 3

    return share


def _alternating(step: int) -> float:
    return float(step in (1, 2, 5, 6) or step >= 9)


METHODS = {
    "one_shot": Method(sj.one_shot(3), lambda step: float(step >= 3), True),
    "gmp": Method(sj.gmp(1, 9, every=2), _cubic_share(1, 9, 2), True),
    "gmp_odd_end": Method(sj.gmp(0, 8, every=3), _cubic_share(0, 8, 3), True),
    "sparse_evolution": Method(sj.sparse_evolution(every=3), lambda step: 1.0, False, True),
    "rigl": Method(sj.rigl(9, every=3), lambda step: 1.0, False, True),
    "static_random": Method(sj.static_random(), lambda step: 1.0, True, True),
    "mest_em": Method(sj.sparse_training.mest_em((4, 9), every=3), lambda step: 1.0, False),
    "iht": Method(sj.pruning.iht(0.1, every=2), lambda step: 1.0, False),
    "ac_dc": Method(sj.pruning.ac_dc(1, 9, phase=2, globally=False), _alternating, False),
}
GLOBAL_METHODS = {
    "global_mp": Method(sj.global_mp(3), lambda step: float(step >= 3), True),
    "global_mp_gradual": Method(sj.global_mp(1, 9, every=2), _cubic_share(1, 9, 2), True),
    "global_mp_floor": Method(
        sj.global_mp(1, 9, every=2, min_weights=40), _cubic_share(1, 9, 2), True
    ),
    "ac_dc_global": Method(sj.pruning.ac_dc(1, 9, phase=2), _alternating, False),
}
# Leaves keep more than their targets on the way, each as much as its own target says.
SWELLING_METHODS = {
    "mest_ems": Method(
        sj.sparse_training.mest_ems((4, 9), every=3), lambda step: float(step >= 9), False
    ),
    "gap": Method(
        sj.sparse_training.gap(2, every=2, rounds=2), lambda step: float(step >= 8), False
    ),
}


class SoftMethod(NamedTuple):
    """A Method at NUM_STEPS steps, made anew by each call, and the patterns that suit it; `exact`
    says that its masks end at the plan's target."""

    make: Callable[[], sj.masks.Method]
    patterns: tuple[str, ...] = ("unstructured",)
    exact: bool = True


SOFT_METHODS = {
    "straight_through": SoftMethod(
        lambda: sj.masks.Method(sj.gmp(1, 9, every=2, regrow=True), sj.soft.straight_through()),
        ("unstructured", "block_4x1", "nm_2_4", "channel"),
    ),
    "pdp": SoftMethod(
        lambda: sj.soft.pdp(1, 9, temperature=0.1, globally=False),
        ("unstructured", "block_4x1", "nm_2_4", "channel"),
    ),
    "pdp_global": SoftMethod(lambda: sj.soft.pdp(1, 9, temperature=0.1), exact=False),
    "sr_ste": SoftMethod(lambda: sj.soft.sr_ste(), ("nm_2_4", "unstructured")),
    "top_kast": SoftMethod(
        lambda: sj.soft.top_kast(every=3), ("unstructured", "nm_2_4", "channel")
    ),
    "movement": SoftMethod(
        lambda: sj.soft.movement(1, 9), ("unstructured", "block_2x2", "nm_2_4", "channel")
    ),
    "soft_movement": SoftMethod(
        lambda: sj.soft.soft_movement(1, 9, threshold=0.5, penalty=1.0),
        ("unstructured", "block_4x1"),
        exact=False,
    ),
    "str": SoftMethod(
        lambda: sj.soft.str_(initial=-0.5), ("unstructured", "block_2x2"), exact=False
    ),
    "spartan": SoftMethod(lambda: sj.soft.spartan(12), ("unstructured", "block_2x2", "nm_2_4")),
}


class Quantizer(NamedTuple):
    """A Reparam that leaves at most `levels` values besides the zeros of pruned weights."""

    make: Callable[[], sj.soft.Reparam]
    levels: int


QUANTIZERS = {
    "symmetric": Quantizer(lambda: sj.quantizers.symmetric_quantizer(2), 3),
    "symmetric_by_channel": Quantizer(
        lambda: sj.quantizers.symmetric_quantizer(2, axis=-1), 3 * 24
    ),
    "asymmetric": Quantizer(lambda: sj.quantizers.asymmetric_quantizer(2), 4),
    "dorefa": Quantizer(lambda: sj.quantizers.dorefa(2), 4),
    "dorefa_1_bit": Quantizer(lambda: sj.quantizers.dorefa(1), 2),
    "lsq": Quantizer(lambda: sj.quantizers.lsq(2), 4),
    "ewgs": Quantizer(lambda: sj.quantizers.ewgs(1), 2),
    "dkm": Quantizer(lambda: sj.quantizers.dkm(2, num_iterations=1), 4),
}

# Pattern and target; shapes below suit all of them.
PATTERNS = {
    "unstructured": (sj.Unstructured(), 0.9),
    "block_4x1": (sj.Block(4, 1), 0.7),
    "block_2x2": (sj.Block(2, 2), 0.6),
    "nm_2_4": (sj.NM(2, 4), 0.5),
    "channel": (sj.Channel(), 0.5),
    "kernel_group": (sj.KernelGroup(2), 0.5),
    "block_column_row": (sj.BlockColumnRow(4, 4, kept_rows=2), 0.75),
    "kernel_pattern": (sj.KernelPattern(), 0.7),
}

_LEARNING_RATE = 0.05
OPTIMIZERS = {
    "sgd": optax.sgd(_LEARNING_RATE),
    "momentum": optax.sgd(_LEARNING_RATE, momentum=0.9, nesterov=True),
    "adam": optax.adam(_LEARNING_RATE),
    "adamw": optax.adamw(_LEARNING_RATE, weight_decay=0.1),
    "lion": optax.lion(_LEARNING_RATE, weight_decay=0.1),
    "rmsprop": optax.rmsprop(_LEARNING_RATE, momentum=0.9),
    "adafactor": optax.adafactor(_LEARNING_RATE, min_dim_size_to_factor=4, momentum=0.9),
    "muon": optax.contrib.muon(_LEARNING_RATE, weight_decay=0.1),
    "lamb": optax.lamb(_LEARNING_RATE, weight_decay=0.1),
    "nadamw": optax.nadamw(_LEARNING_RATE),
    "clip_chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(_LEARNING_RATE)),
    "noise_chain": optax.chain(optax.add_noise(0.1, 0.5, key=0), optax.adam(_LEARNING_RATE)),
    "admm_chain": optax.chain(
        sj.structured.admm(lambda path, w: None if "bias" in path else jnp.round(w), every=4),
        optax.adam(_LEARNING_RATE),
    ),
    "penalty_chain": optax.chain(
        sj.add_penalty(sj.penalties.kure(), 0.1), optax.adam(_LEARNING_RATE)
    ),
    "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(
        learning_rate=optax.linear_schedule(_LEARNING_RATE, 0.0, 20)
    ),
    "multi_steps_inside": optax.MultiSteps(optax.adam(_LEARNING_RATE), 2).gradient_transformation(),
    "schedule_free": optax.contrib.schedule_free_adamw(_LEARNING_RATE),
    "masked": optax.masked(
        optax.adamw(_LEARNING_RATE), lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p)
    ),
}


def shapes() -> dict[str, tuple[int, ...]]:
    """A convolution, a dense layer, a head that stays dense, and biases."""
    return {
        "conv/kernel": (3, 3, 4, 8),
        "conv/bias": (8,),
        "dense/kernel": (16, 24),
        "head/kernel": (8, 4),
    }


def dict_params(seed: int = 0, dtype: Any = jnp.float32) -> dict[str, Any]:
    """Nested dicts of normal weights with the table's shapes."""
    generator = np.random.default_rng(seed)
    params: dict[str, Any] = {}
    for path, shape in shapes().items():
        module, name = path.split("/")
        leaf = jnp.asarray(generator.normal(size=shape), dtype)
        params.setdefault(module, {})[name] = leaf
    return params


def planned(pattern: sj.Pattern, sparsity: float, params: Any = None) -> sj.Plan:
    """The pattern on every kernel but the head's and those that it can't take."""
    params = dict_params() if params is None else params
    takes = lambda leaf: leaf.ndim == 4 or not isinstance(pattern, sj.KernelPattern)
    kernels = [
        f"^{path}$"
        for path, leaf in tree.leaves_with_paths(params)
        if path.endswith("kernel") and not path.startswith("head") and takes(leaf)
    ]
    return sj.plan(params, dict.fromkeys(kernels, pattern), sparsity=sparsity)


@functools.partial(jax.jit, inline=True)
def fake_grads(params: Any, step: Any) -> Any:
    """Gradients that depend on the params, the position and the step, without a model."""

    def grad(leaf: jax.Array) -> jax.Array:
        index = jnp.arange(leaf.size, dtype=jnp.float32).reshape(leaf.shape)
        return (jnp.sin(7.0 * leaf.astype(jnp.float32) + 3.0 * index + step)).astype(leaf.dtype)

    return jax.tree.map(grad, params)


class Linen(linen.Module):
    """Two linen layers."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.Dense(4, name="head")(jax.nn.relu(linen.Dense(16, name="body")(x)))


class NNX(nnx.Module):
    """Two NNX layers in a list."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers[1](jax.nn.relu(self.layers[0](x)))


class Tree(NamedTuple):
    """Params of some framework, the rules that make a plan of them, and a loss."""

    params: Any
    rules: dict[str, Any]
    loss: Callable[[Any], jax.Array]


def _inputs() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(5, 8)), jnp.float32)


# Each draws its params by one program.
_init_linen = jax.jit(Linen().init)
_split_nnx = lambda: nnx.split(NNX(nnx.Rngs(0)))
_init_nnx = jax.jit(lambda: _split_nnx()[1])
_init_equinox = eqx.filter_jit(lambda: eqx.nn.MLP(8, 4, 16, 1, key=jax.random.key(0)))


def _linen() -> Tree:
    model = Linen()
    params = _init_linen(jax.random.key(0), _inputs())
    rules = {"head": None, "kernel": sj.Unstructured()}
    return Tree(params, rules, lambda p: jnp.mean(model.apply(p, _inputs()) ** 2))


def _nnx_state() -> Tree:
    graph, params = nnx.eval_shape(_split_nnx)[0], _init_nnx()
    rules = {"layers/1": None, "kernel": sj.Unstructured()}
    return Tree(params, rules, lambda p: jnp.mean(nnx.merge(graph, p)(_inputs()) ** 2))


def _equinox() -> Tree:
    model = _init_equinox()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    rules = {"layers/1": None, "weight": sj.Unstructured(output_axis=0)}
    loss = lambda p: jnp.mean(jax.vmap(eqx.combine(p, static))(_inputs()) ** 2)
    return Tree(params, rules, loss)


def _sequence(kind: Callable[[list[Any]], Any]) -> Tree:
    kernels = np.random.default_rng(2)
    make = lambda *shape: jnp.asarray(kernels.normal(size=shape), jnp.float32)
    params = kind([kind([make(8, 16), make(16)]), make(16, 4)])
    rules = {"^0/0$": sj.Unstructured()}
    loss = lambda p: jnp.mean((jax.nn.relu(_inputs() @ p[0][0] + p[0][1]) @ p[1]) ** 2)
    return Tree(params, rules, loss)


TREES = {
    "linen": _linen,
    "nnx_state": _nnx_state,
    "equinox": _equinox,
    "tuple": lambda: _sequence(tuple),
    "list": lambda: _sequence(list),
}
