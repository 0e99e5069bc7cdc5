"""The activations that kernels apply themselves; any other is applied behind them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from sparsejax.ops._ffi import CODES

Activation = Callable[[Array], Array]

_RELU, _RELU6 = (CODES["activation"][name] for name in ("relu", "relu6"))
_FUNCTIONS: dict[int, Activation] = {
    CODES["activation"]["none"]: lambda y: y,
    _RELU: jax.nn.relu,
    _RELU6: jax.nn.relu6,
}
_CODES = {function: code for code, function in _FUNCTIONS.items()}


def split(activation: Activation | None) -> tuple[int, Activation | None]:
    """The code of what the kernel applies, and what is left to apply behind it."""
    if activation is None:
        return 0, None
    if not callable(activation):
        raise TypeError(
            f"activation needs a function or None, got {activation!r}; pass jax.nn.relu, say."
        )
    code = _CODES.get(activation, 0)
    return code, None if code else activation


def apply(code: int, y: Float[Array, "..."]) -> Float[Array, "..."]:
    """The activation of a code."""
    return _FUNCTIONS[code](y)


def grad(code: int, y: Float[Array, "..."], grad_y: Float[Array, "..."]) -> Float[Array, "..."]:
    """The gradient before the activation, from its output; 0 where the output is at a bound."""
    if code == 0:
        return grad_y
    passes = (y > 0) & (y < 6) if code == _RELU6 else y > 0
    return jnp.where(passes, grad_y, 0)
