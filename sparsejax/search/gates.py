"""Binary gates: of several paths one runs, and the others' worth is still learned by gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

Path = Callable[[Any, Any], Any]
"""`path(params, x) -> y`; all paths of an edge take the same params and give the same shapes."""


class Gate(NamedTuple):
    """Which path of an edge runs, and which of them learn from it.

    Attributes:
      active: the path that runs.
      candidates: those whose alphas get a gradient, the active one among them; none in a step that
        trains weights.
    """

    active: Int[Array, ""]
    candidates: Int[Array, " candidates"]


def sample_gate(
    key: PRNGKeyArray, alphas: Float[Array, " paths"], *, num_candidates: int | None = None
) -> Gate:
    """A gate whose path is drawn with the probabilities softmax(alphas).

    Args:
      key: of the draw.
      alphas: of an edge.
      num_candidates: None for all paths. 2 draws two of them by the probabilities, without
        replacement, and the active one of these by theirs. 0 is for steps that train weights.

    Raises:
      ValueError: there are fewer paths.

    Example:
      >>> sj.search.sample_gate(key, jnp.array([0.0, 50.0, 0.0])).active.item()
      1
    """
    size = alphas.shape[0]
    if num_candidates is not None and not 0 <= num_candidates <= size:
        raise ValueError(
            f"sample_gate needs num_candidates from 0 to the {size} paths of the edge, got "
            f"{num_candidates}."
        )
    first, second = jax.random.split(key)
    if not num_candidates:
        listed = jnp.arange(size if num_candidates is None else 0)
        return Gate(jax.random.categorical(second, alphas), listed)
    # The highest of alphas with Gumbel noise are draws without replacement.
    noisy = alphas + jax.random.gumbel(first, alphas.shape, alphas.dtype)
    listed = jax.lax.top_k(noisy, num_candidates)[1]
    return Gate(listed[jax.random.categorical(second, alphas[listed])], listed)


def one_path(
    paths: Sequence[Path], alphas: Float[Array, " paths"], gate: Gate, params: Any, x: Any
) -> Any:
    """What the gate's active path gives, with the path-level gradient for alphas.

    Forwards and backwards one path runs at a time, and nothing of it is kept between the two but
    its input, so that memory does not grow with the number of paths. With the loss L, the output o
    and the path j giving o_j(x), dL/dg_j = <dL/do, o_j(x)> and

        dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)

    over the gate's candidates, whose alphas give p. Params of paths that do not run get zeros.

    Args:
      paths: functions of (params, x), all to the same shapes.
      alphas: of the edge.
      gate: of `sample_gate`.
      params: of all paths together; each takes its own.
      x: input of the edge.

    Raises:
      ValueError: there are not as many paths as alphas.

    Example:
      >>> paths = [lambda p, x: p * x, lambda p, x: x]
      >>> alphas = jnp.zeros(2)
      >>> gate = sj.search.Gate(jnp.array(0), jnp.arange(2))
      >>> loss = lambda alphas: sj.search.one_path(paths, alphas, gate, 3.0, 1.0)
      >>> loss(alphas).item(), jax.grad(loss)(alphas).tolist()
      (3.0, [0.5, -0.5])

    Reference: Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and
    Hardware", ICLR 2019, arXiv 1812.00332, section 3.2; with two candidates section 3.2.1. Differs:
    the path runs once more in the backward pass, where the authors keep what it held.
    """
    if len(paths) != alphas.shape[0]:
        raise ValueError(
            f"one_path needs an alpha for each path, got {len(paths)} paths and alphas of shape "
            f"{alphas.shape}."
        )
    return _one_path(tuple(paths), alphas, gate, params, x)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _one_path(paths: tuple[Path, ...], alphas: Any, gate: Gate, params: Any, x: Any) -> Any:
    return jax.lax.switch(gate.active, paths, params, x)


def _forwards(paths: tuple[Path, ...], alphas: Any, gate: Gate, params: Any, x: Any) -> Any:
    return jax.lax.switch(gate.active, paths, params, x), (alphas, gate, params, x)


def _backwards(paths: tuple[Path, ...], saved: Any, cotangent: Any) -> Any:
    alphas, gate, params, x = saved
    pulls = [lambda p, x, out, path=path: jax.vjp(path, p, x)[1](out) for path in paths]
    d_params, d_x = jax.lax.switch(gate.active, pulls, params, x, cotangent)

    def worth(path: Int[Array, ""]) -> Float[Array, ""]:
        return optax.tree.vdot(cotangent, jax.lax.switch(path, paths, params, x))

    d_gates = jax.lax.map(worth, gate.candidates)
    return gate_gradient(alphas, gate.candidates, d_gates), None, d_params, d_x


_one_path.defvjp(_forwards, _backwards)


def gate_gradient(
    alphas: Float[Array, " paths"],
    candidates: Int[Array, " candidates"],
    d_gates: Float[Array, " candidates"],
) -> Float[Array, " paths"]:
    """The gradient for alphas of gates that are on with the probabilities of the candidates."""
    chances = jax.nn.softmax(alphas[candidates])
    own = chances * (d_gates - jnp.vdot(chances, d_gates))
    return jnp.zeros_like(alphas).at[candidates].set(own.astype(alphas.dtype))


def keep_others(
    new: Float[Array, " paths"], old: Float[Array, " paths"], candidates: Int[Array, " candidates"]
) -> Float[Array, " paths"]:
    """The new alphas, moved so that paths which were no candidates keep their probabilities.

    Args:
      new, old: alphas after and before an update of the candidates' alone.
      candidates: of the gate.

    Example:
      >>> old, new = jnp.zeros(3), jnp.array([1.0, 0.0, 0.0])
      >>> moved = sj.search.keep_others(new, old, jnp.array([0, 1]))
      >>> round(jax.nn.softmax(moved)[2].item(), 4)
      0.3333

    Reference: Cai et al., ProxylessNAS, arXiv 1812.00332, section 3.2.1.
    """
    total = jax.nn.logsumexp
    offset = total(old[candidates]) - total(new[candidates])
    return old.at[candidates].set(new[candidates] + offset)
