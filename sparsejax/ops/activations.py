"""The activations that kernels apply themselves; any other is applied behind them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Activation = Callable[[Array], Array]

# Codes of the C++ enum.
_CODES: dict[Activation, int] = {jax.nn.relu: 1, jax.nn.relu6: 2}
_FUNCTIONS: tuple[Activation, ...] = (lambda y: y, jax.nn.relu, jax.nn.relu6)


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
    passes = (y > 0) & (y < 6) if code == 2 else y > 0
    return jnp.where(passes, grad_y, 0)
