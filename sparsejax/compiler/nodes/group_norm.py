"""Group norm and instance norm over the pixels of images or lines, told by their values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsejax.compiler.graph.edit import Edit, grown, is_float, made, number_of
from sparsejax.compiler.graph.graph import Node, Value
from sparsejax.compiler.graph.images import FIRST, LAST, of_line, one_a_channel
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.moments import Moments
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.sampled import REPEAT, computed, near

MAX_NODES = 32  # of one group norm; equinox's has 21
MAX_PROBED = 1 << 23  # elements
SMALL = 1e-3  # standard deviation of the images that show epsilon
NOISE = 1e-9  # of their variance: less than this is no epsilon
ARITHMETIC = ("add", "sub", "mul", "div")
ENDS = (*ARITHMETIC, "Reshape")
ROOTS = ("rsqrt", "sqrt")
NAMES = (*ARITHMETIC, *ROOTS, "square", "integer_pow", "reduce_sum", REPEAT)


@dataclass(frozen=True, eq=False)
class _GroupNorm:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, along all axes but the first.

    The mean is of each group of channels, whose axis is 1 or the last; scale and shift of each.
    """

    scale: np.ndarray
    shift: np.ndarray
    epsilon: float
    groups: int
    axis: int

    def nodes(self, x: Value) -> list[Node]:
        """The mean is subtracted first: x * factor - mean * factor would cancel."""
        if len(x.shape) == 3:
            return self._of_line(x)
        count, gate = self.scale.size, one_a_channel(x.shape, self.axis)
        scale = np.concatenate([self.scale, np.ones(count)])
        both = list(gate)
        both[self.axis] *= 2
        op = Moments(scale, 0 * scale, self.epsilon, self.groups, self.axis == LAST)
        moments = made(op, [x], both)
        factor, mean = (
            made(Channels(np.arange(count) + start, self.axis), moments.outputs, gate)
            for start in (0, count)
        )
        centred = made(Elementwise("sub"), [x, *mean.outputs], x.shape)
        scaled = made(Elementwise("mul"), [*centred.outputs, *factor.outputs], x.shape)
        nodes = [moments, factor, mean, centred, scaled]
        if self.shift.any():
            shifted = Affine(np.ones(count), self.shift, self.axis)
            nodes.append(made(shifted, scaled.outputs, x.shape))
        return nodes

    def _of_line(self, x: Value) -> list[Node]:
        last = self.axis == 2
        shape = of_line(x.shape, last)
        image = made(Reshape(shape), [x], shape)
        nodes = replace(self, axis=LAST if last else FIRST).nodes(image.outputs[0])
        return [image, *nodes, made(Reshape(x.shape), nodes[-1].outputs, x.shape)]


def to_group_norm(edit: Edit, node: Node) -> bool:
    """The equations of a group norm, however they are spelled."""
    shape = node.outputs[0].shape if node.outputs else ()
    if node.op.name not in ENDS or len(shape) not in (3, 4) or not is_float(*node.outputs):
        return False
    if not 0 < node.outputs[0].size <= MAX_PROBED:
        return False
    joins = lambda other: _joins(other, node.outputs[0].size)
    for (source, *more), nodes in grown(edit, node, joins, most=MAX_NODES):
        if more or source.shape != shape or not is_float(source):
            continue
        norm = _norm_of(source, nodes)
        if norm is not None:
            return edit.replace(node, *norm.nodes(source))
    return False


def _joins(node: Node, size: int) -> bool:
    """Is it arithmetic, a sum or a move of float32? Of maxima, that of a variance and zero."""
    if not is_float(*node.inputs, *node.outputs):
        return False
    if node.op.name == "max":
        zeros = [n is not None and not n.any() for n in map(number_of, node.inputs)]
        return any(zeros) and node.outputs[0].size < size
    return isinstance(node.op, Reshape) or node.op.name in NAMES


def _norm_of(source: Value, nodes: Sequence[Node]) -> _GroupNorm | None:
    """The norm that nodes make of images, None if it is none."""
    sums = {node.outputs[0].size for node in nodes if node.op.name == "reduce_sum"}
    if len(sums) != 1 or not any(node.op.name in ROOTS for node in nodes):
        return None
    groups, rest = divmod(sums.pop(), source.shape[0])
    both = (len(source.shape) - 1, FIRST)
    axes = [axis for axis in both if not rest and source.shape[axis] % groups == 0]
    probes: list[tuple[np.ndarray, np.ndarray]] = []
    with np.errstate(all="ignore"):
        for x in _images(source.shape) if axes else ():
            y = computed(nodes, {source: x})
            if y is None:
                return None
            probes.append((x, y))
        for axis in axes:
            grouped = [(_grouped(x, axis, groups), _grouped(y, axis, groups)) for x, y in probes]
            norm = _fitted(grouped, axis)
            if norm is not None and all(_near(y, _normed(norm, x)) for x, y in grouped):
                return norm
    return None


def _images(shape: Sequence[int]) -> list[np.ndarray]:
    """Large ones, the same with the other sign, small ones, and any whose means are not 0."""
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, *shape))
    for axis in (FIRST, len(shape) - 1):
        each = one_a_channel(tuple(shape), axis)
        other = other * rng.uniform(0.1, 9, each) + rng.normal(size=each)
    return [x / SMALL, -x / SMALL, x * SMALL, other]


def _grouped(x: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Images as (images, groups, channels of a group, pixels)."""
    x = np.moveaxis(x, axis, 1)
    return x.reshape(len(x), groups, x.shape[1] // groups, -1)


def _standard(x: np.ndarray, epsilon: float) -> np.ndarray:
    """Of groups, in float64: mean 0 and variance 1."""
    centred = x - x.mean((2, 3), keepdims=True)
    return np.asarray(centred / np.sqrt(np.square(centred).mean((2, 3), keepdims=True) + epsilon))


def _fitted(probes: Sequence[tuple[np.ndarray, np.ndarray]], axis: int) -> _GroupNorm | None:
    """The norm that gives what the first three images, as groups, became."""
    (x, large), (_, mirrored), (_, small), _ = probes
    unit = _standard(x, 0.0)[0]
    place = np.abs(unit).argmax(2, keepdims=True)  # in each channel of the first image
    at = lambda array: np.take_along_axis(array, place, 2)[..., 0]
    unit = at(unit)
    shift, scale = at(large[0] + mirrored[0]) / 2, at(large[0] - mirrored[0]) / 2 / unit
    if not np.isfinite(np.array([scale, shift], np.float32)).all() or not scale.any():
        return None
    most = np.unravel_index(np.abs(scale).argmax(), scale.shape)
    shrunk = (at(small[0]) - shift)[most] / (unit * scale)[most]  # sqrt(variance / (... + epsilon))
    variance = SMALL**4 * x[0, most[0]].var()
    epsilon = float(variance * (1 / np.square(shrunk) - 1))
    epsilon = 0.0 if epsilon < NOISE * variance else epsilon
    return _GroupNorm(scale.ravel(), shift.ravel(), epsilon, len(scale), axis)


def _normed(norm: _GroupNorm, x: np.ndarray) -> np.ndarray:
    """The norm of groups, in float64."""
    scale, shift = (a.reshape(*x.shape[1:3], 1) for a in (norm.scale, norm.shift))
    return np.asarray(_standard(x, norm.epsilon) * scale + shift)


def _near(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Channel by channel."""
    pixels = actual.shape[-1]
    return near(actual.reshape(-1, pixels), expected.reshape(-1, pixels))


RULES = Rules(sampled=(to_group_norm,))
