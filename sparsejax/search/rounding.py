"""Any function with the weights and inputs of its layers on grids of some bits, compiled once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs import run_tapped
from sparsejax.jaxprs.read import by_paths
from sparsejax.search.layers import LayerSite, layer_sites

Bits = Mapping[str, tuple[int, int]]
"""Of each layer's weights and of its inputs, by the path of its leaf."""

SAMPLE = 4096  # numbers of a layer's input that its steps are chosen by
THRESHOLDS = np.linspace(0.2, 1.0, 33)  # fractions of the largest number that are tried
WHOLE_RANGE = 5  # bits from which on a weight's range is never cut


@dataclass(frozen=True)
class Grids:
    """Steps for the weights and inputs of each layer at any bits.

    Attributes:
      weight_steps, input_steps: of each layer by path, for 2, 3, ... bits.
      signed: layers of which inputs are negative, too.
    """

    weight_steps: Mapping[str, np.ndarray]
    input_steps: Mapping[str, np.ndarray]
    signed: frozenset[str]

    def at(self, bits: Bits) -> dict[str, Float[np.ndarray, "2 3"]]:
        """For `rounded`: step, lowest and highest level of the weights, and those of the inputs.

        Those of a layer that is not named are zeros, and it stays as it is.
        """
        grids = {path: np.zeros((2, 3), np.float32) for path in self.weight_steps}
        for path, (own, inputs) in bits.items():
            top, input_top = _top(own, True), _top(inputs, path in self.signed)
            grids[path][0] = self.weight_steps[path][own - 2], -top, top
            low = -input_top if path in self.signed else 0
            grids[path][1] = self.input_steps[path][inputs - 2], low, input_top
        return grids


@checked(apply_fn=FUNCTION)
def layer_grids(apply_fn: Callable[..., Any], params: Any, *example: Any, high: int = 8) -> Grids:
    """The grids of each layer at 2 to `high` bits, by its weights and by what an example gives it.

    Weights are symmetric, of levels k s with |k| <= 2^(bits-1) - 1, the largest one a level from 5
    bits on. Inputs are of levels k s with 0 <= k < 2^bits, or symmetric if some are negative.
    Elsewhere the step is that of the least squared error.

    Args:
      apply_fn, params, example: as for `sj.post.calibrate`; some hundred inputs do.
      high: the most bits, at least 2.

    Raises:
      ValueError: high < 2, or a layer is no convolution or matrix product of a whole leaf.

    Example:
      >>> grids = sj.search.layer_grids(model.apply, params, x)
      >>> run = sj.search.rounded(model.apply)
      >>> run(params, grids.at({"body/kernel": (4, 8)}), x).shape
      (3, 2)

    Differs: the least squared error chooses where HAQ's code takes the least divergence.

    Reference: Wang et al., "HAQ: Hardware-Aware Automated Quantization with Mixed Precision", CVPR
    2019, arXiv 1811.08886.
    """
    if high < 2:
        raise ValueError(f"layer_grids needs high >= 2, got {high}.")
    check_examples("layer_grids", apply_fn, params, example)
    arrays, call = by_paths(apply_fn, params)
    with tracing("layer_grids"):
        samples = jax.jit(lambda own, *inputs: _samples(call, own, inputs))(arrays, *example)
    values = {path: np.asarray(own, np.float64) for path, own in samples.items()}
    signed = frozenset(path for path, own in values.items() if (own < 0).any())
    weights = {path: np.asarray(arrays[path], np.float64).ravel() for path in values}
    bits = range(2, high + 1)
    return Grids(
        {
            path: np.array([_step(own, b, True, b >= WHOLE_RANGE) for b in bits])
            for path, own in weights.items()
        },
        {
            path: np.array([_step(own, b, path in signed, False) for b in bits])
            for path, own in values.items()
        },
        signed,
    )


def _top(bits: int, signed: bool) -> int:
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


def _step(values: np.ndarray, bits: int, signed: bool, whole: bool) -> float:
    """The step of the least squared error, or that which reaches the largest number."""
    top, largest = _top(bits, signed), max(float(np.abs(values).max(initial=0.0)), 1e-12)
    if whole:
        return largest / top
    steps = THRESHOLDS * largest / top
    levels = np.clip(np.round(values / steps[:, None]), -top if signed else 0, top)
    return float(steps[np.argmin(np.square(levels * steps[:, None] - values).sum(1))])


def _samples(call: Callable[..., Any], arrays: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    """Some numbers of what goes into each layer."""
    closed = jax.make_jaxpr(call)(arrays, *inputs)
    sites = layer_sites(closed, arrays)

    def sample(equation: Any, side: int, operands: Sequence[Any]) -> Any:
        flat = operands[1 - side].ravel()
        return flat[:: max(1, -(-flat.size // SAMPLE))].astype(jnp.float32)

    _, found = run_tapped(closed, jax.tree.leaves((arrays, inputs)), _taps(sites), sample)
    return {own.path: found[own.site.trail, own.side].ravel() for own in sites}


@checked(apply_fn=FUNCTION)
def rounded(apply_fn: Callable[..., Any]) -> Callable[..., Any]:
    """`apply(params, grids, *inputs)`: a function with its layers' weights and inputs on grids.

    The grids, of `Grids.at`, are arrays: one program serves for all bits. The slope of rounding is
    1, so that a loss can be trained through it.

    Example:
      >>> grids = sj.search.layer_grids(model.apply, params, x)
      >>> loss = sj.search.rounded(lambda params, x: (model.apply(params, x) ** 2).sum())
      >>> slopes = jax.grad(loss)(params, grids.at({"head/kernel": (2, 4)}), x)
    """

    def apply(params: Any, grids: Mapping[str, Any], *inputs: Any) -> Any:
        arrays, call = by_paths(apply_fn, params)
        closed, shape = jax.make_jaxpr(call, return_shape=True)(arrays, *inputs)
        sites = layer_sites(closed, arrays)
        paths = {(own.site.trail, own.side): own.path for own in sites}

        def change(tap: Any, operands: Sequence[Any]) -> list[Any]:
            own, side = grids[paths[tap]], tap[1]
            changed = [_on_grid(x, own[int(i != side)]) for i, x in enumerate(operands[:2])]
            return [*changed, *operands[2:]]

        operands = jax.tree.leaves((arrays, inputs))
        outputs, _ = run_tapped(closed, operands, _taps(sites), change=change)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return apply


def _taps(sites: Sequence[LayerSite]) -> dict[Any, tuple[bool, ...]]:
    return {(own.site.trail, own.side): (False,) * len(own.site.steps) for own in sites}


def _on_grid(x: Float[Array, "..."], grid: Float[Array, "3"]) -> Float[Array, "..."]:
    """The multiple of the step that is next to x; x itself where the step is 0."""
    step = jnp.where(grid[0] > 0, grid[0], 1.0)
    found = jnp.clip(jnp.round(x / step), grid[1], grid[2]) * step
    return x + jax.lax.stop_gradient(jnp.where(grid[0] > 0, found - x, 0.0).astype(x.dtype))
