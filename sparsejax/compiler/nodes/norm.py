"""Layer norm and RMS norm over the channels, told by their values."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compiler.engine.program import Builder
from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import is_channel
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.op import ChannelsOp, Rules, along
from sparsejax.compiler.nodes.sampled import Along, functions_to, near

CANCELLED = 1e-9  # of a variance: less than this is noise, not epsilon
LAYER_NORM, RMS_NORM = "layer_norm", "rms_norm"  # in xla_ops/engine/codes.def


@dataclass(frozen=True, eq=False)
class Norm(ChannelsOp):
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, over the channels.

    Attributes:
        scale, shift: (channels,).
        epsilon: is added to the variance.
        axis: of the channels.
        centred: is the mean subtracted? Else the variance is the mean of x^2 (RMS norm).
    """

    scale: np.ndarray
    shift: np.ndarray
    epsilon: float
    axis: int
    centred: bool = True

    def __str__(self) -> str:
        """Kind and size."""
        return f"Norm {LAYER_NORM if self.centred else RMS_NORM} {self.scale.size}"

    def evaluate(self, x: jax.Array) -> list[jax.Array]:
        y = x - x.mean(self.axis, keepdims=True) if self.centred else x
        variance = jnp.square(y).mean(self.axis, keepdims=True)
        y = y * jax.lax.rsqrt(variance + np.asarray(self.epsilon, x.dtype))
        scale, shift = (along(array, self.axis, x) for array in (self.scale, self.shift))
        return [y * scale + shift]

    def mapping(self, node: Node) -> MappingType:
        return MappingType.MANY_TO_MANY

    def lower(self, node: Node, to: Builder) -> None:
        """One step."""
        kind = LAYER_NORM if self.centred else RMS_NORM
        weights, bias = to.keep(self.scale), to.keep(self.shift)
        epsilon = Activation(low=self.epsilon)
        to.add(node, kind, activation=epsilon, weights=weights, bias=bias)


def to_norm(edit: Edit, node: Node) -> bool:
    """The equations of a norm, however they are spelled."""
    for function in reversed(list(functions_to(edit, node))):
        rank = len(function.source.shape)
        if is_channel(function.axis, rank) and rank > 1 and _has_root(function):
            norm = norm_of(function)
            if norm is not None:
                return edit.replace(node, *function.through(norm))
    return False


def _has_root(function: Along) -> bool:
    names = {node.op.name for node in function.nodes}
    return "reduce_sum" in names and not names.isdisjoint(("rsqrt", "sqrt", "pow"))


def norm_of(function: Along) -> Norm | None:
    """The norm that a function of rows is, None if it is none."""
    length = function.length
    if length < 2:
        return None
    rng = np.random.default_rng(0)
    row = np.sign(rng.random(length) - 0.5) * (1 + rng.random(length))
    row[0], row[1] = 1.5, -1.25  # never all of one sign
    rows = rng.normal(size=(8, length)) * np.logspace(-4, 3, 8)[:, None] + 3 * np.eye(8)[:, :1]
    rows[3] += 2
    rows[6, length // 2] = np.nan
    with np.errstate(all="ignore"):
        probes, actual = function(np.stack([1e3 * row, -1e3 * row, 1e-3 * row])), function(rows)
        if probes is None or actual is None:
            return None
        for centred in (True, False):
            norm = _fitted(row, probes, centred, function.axis)
            if norm is not None and near(actual, _normed(norm, rows)):
                return norm
    return None


def _fitted(row: np.ndarray, probes: np.ndarray, centred: bool, axis: int) -> Norm | None:
    """The norm that gives the probes for 1000, -1000 and 1/1000 times the row."""
    centre = row - row.mean() if centred else row
    if (np.abs(centre) < 1e-3).any():
        return None
    variance = np.square(centre).mean()
    shift = (probes[0] + probes[1]) / 2
    scale = (probes[0] - probes[1]) / 2 / centre * np.sqrt(variance)
    place = np.argmax(np.abs(scale))
    if not np.isfinite([*scale, *shift]).all() or not scale.any():
        return None
    small = (probes[2] - shift)[place] / (scale * centre)[place] * 1e3
    if not small:
        return None
    epsilon = 1 / np.square(small) - 1e-6 * variance
    epsilon = 0.0 if epsilon < 1e-6 * CANCELLED * variance else float(epsilon)
    return Norm(scale, shift, epsilon, axis, centred)


def _normed(norm: Norm, rows: np.ndarray) -> np.ndarray:
    """The norm in float64."""
    centre = rows - rows.mean(1, keepdims=True) if norm.centred else rows
    variance = np.square(centre).mean(1, keepdims=True)
    return np.asarray(centre / np.sqrt(variance + norm.epsilon) * norm.scale + norm.shift)


RULES = Rules(sampled=(to_norm,))
