"""The scalar functions that layers apply, and how one is told by its values."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose parts are imported when they are called

from sparsejax.jaxprs.in_numpy import maximum, minimum

# As in xla_ops/kernels/codes.def.
NAMES = (
    "identity",
    "clamp",
    "sigmoid",
    "silu",
    "hard_sigmoid",
    "hard_swish",
    "gelu_tanh",
    "gelu_erf",
    "tanh",
    "leaky_relu",
    "elu",
    "softplus",
)


@dataclass(frozen=True)
class Activation:
    """A function of one number; NaN gives NaN.

    Attributes:
        name: one of NAMES.
        low: the lower bound of "clamp", the slope of "leaky_relu" below 0, the scale of "elu".
        high: the upper bound of "clamp".
    """

    name: str = "identity"
    low: float = 0.0
    high: float = 0.0

    def __call__(self, x: jax.Array) -> jax.Array:
        """The function in JAX."""
        if self.name == "clamp":
            return _clamp(x, self.low, self.high)
        if self.name in ("leaky_relu", "elu"):
            return getattr(jax.nn, self.name)(x, self.low)
        return _IN_JAX[self.name](x)

    def __bool__(self) -> bool:
        """Does it change anything?"""
        return self.name != "identity"

    def __str__(self) -> str:
        """The common name: relu, relu6, silu."""
        if self.name == "clamp":
            if self.low == 0 and self.high in (6, np.inf):
                return "relu6" if self.high == 6 else "relu"
            return f"clamp({self.low:g}, {self.high:g})"
        return f"{self.name}({self.low:g})" if self.name in ("leaky_relu", "elu") else self.name


def _clamp(x: jax.Array, low: float, high: float) -> jax.Array:
    if low == 0 and high in (6, np.inf):  # their derivatives at the bounds are defined
        return jax.nn.relu6(x) if high == 6 else jax.nn.relu(x)
    x = x if low == -np.inf else jnp.maximum(x, jnp.asarray(low, x.dtype))
    return x if high == np.inf else jnp.minimum(x, jnp.asarray(high, x.dtype))


_IN_JAX: dict[str, Callable] = {
    "identity": lambda x: x,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_swish": jax.nn.hard_swish,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
}

IDENTITY = Activation()
RELU = Activation("clamp", 0.0, np.inf)
RELU6 = Activation("clamp", 0.0, 6.0)

# Where functions are compared. Bounds beyond FAR count as none.
FAR = 1e30
_GRID = np.linspace(-12, 12, 1537)
_NEAR = [-1e4, -100, -20, -1e-3, 1e-3, 2.999, 3.001, 5.999, 6.001, 20, 100, 1e4]
SAMPLES = np.concatenate([_GRID, _NEAR, [-FAR, FAR, -1.0, np.nan]]).astype(np.float32)
EDGES = np.array([0.0, -0.0, np.inf, -np.inf], np.float32)
_X = SAMPLES[:-1].astype(np.float64)
_FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda x: x,
    "sigmoid": lambda x: scipy.special.expit(x),
    "silu": lambda x: x * scipy.special.expit(x),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "gelu_erf": lambda x: x * scipy.special.erfc(-x / np.sqrt(2)) / 2,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
}


@functools.cache
def _expected(name: str) -> np.ndarray:
    return _FORMULAS[name](_X)


def recognise(function: Callable[[np.ndarray], np.ndarray | None]) -> Activation | None:
    """The activation that a function of samples is, however it was spelled.

    It must agree in float32, where formulas overflow and round, and more closely in float64, where
    a bound of 1e-7 below a sigmoid is seen.

    Args:
        function: evaluates SAMPLES in either precision; None if it cannot.
    """
    single = function(SAMPLES)
    if single is None or single.dtype != np.float32 or not np.isnan(single[-1]):
        return None
    double = function(SAMPLES.astype(np.float64))
    if double is None:
        return None
    single, double = single[:-1].astype(np.float64), double[:-1].astype(np.float64)
    if not (np.isfinite(single).all() and np.isfinite(double).all()):
        return None
    for activation, formula in _candidates(double):
        known = activation.name in _FORMULAS
        expected = _expected(activation.name) if known else formula(_X)
        error = np.abs(double - expected)
        fine = (error <= 3e-6 * np.abs(expected) + 1e-14 * (1 + np.abs(_X))).all()
        if fine and (np.abs(single - expected) <= 3e-6 * (1 + np.abs(expected))).all():
            return activation if _alike_at_edges(function, formula) else None
    return None


def _alike_at_edges(function: Callable, formula: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Have both the same sign where they are 0, and are they the same at both infinities?"""
    with np.errstate(all="ignore"):
        actual, expected = function(EDGES), formula(EDGES.astype(np.float64))
    if actual is None or not np.allclose(actual[2:], expected[2:], 0, 1e-30, equal_nan=True):
        return False
    zeros = (actual[:2] == 0) & (expected[:2] == 0)
    return bool((~zeros | (np.signbit(actual[:2]) == np.signbit(expected[:2]))).all())


def _candidates(values: np.ndarray) -> Iterator[tuple[Activation, Callable]]:
    """Activations and what they compute; the values of SAMPLES say which parameters these have."""
    first, last, slope = float(values[-3]), float(values[-2]), -float(values[-1])
    low, high = (-np.inf if first <= -FAR else first), (np.inf if last >= FAR else last)
    for name, formula in _FORMULAS.items():
        yield Activation(name), formula
    if low < high:
        yield Activation("clamp", low, high), lambda x: minimum(maximum(x, low + 0.0), high + 0.0)
    yield Activation("leaky_relu", slope), lambda x: np.where(x > 0, x, slope * x)
    yield (
        Activation("elu", -first),
        lambda x: np.where(x > 0, x, -first * np.expm1(np.where(x > 0, 0, x))),
    )
