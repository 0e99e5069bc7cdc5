"""Transposed convolutions, as convolutions whose channels are the phases of the output's pixels.

Of stride s, output s q + r sees only every s-th weight, and these as an ordinary convolution's:
all r together are one of s^2 times the channels, which are pixels then.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.graph.edit import Edit, made
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.images import sides, spatial
from sparsejax.compiler.nodes.conv import Conv, read
from sparsejax.compiler.nodes.op import Rules
from sparsejax.compiler.nodes.pick import Pick


class Phases(NamedTuple):
    """One axis.

    Attributes:
        taps: (phases, taps) which weight each is; the number of weights where it is none.
        padding: of the convolution.
        size: of its output, which has all phases of a pixel.
    """

    taps: np.ndarray
    padding: tuple[int, int]
    size: int


def phases(weights: int, apart: int, pad: int, before: int, after: int) -> Phases | None:
    """The phases along one axis; None where there are no taps.

    Args:
        weights: number of them.
        apart: stride of the transposed convolution.
        pad: zeros in front of the first pixel.
        before, after: sizes of input and output.
    """
    first, last = -(pad // apart), (weights - 1 - pad + apart - 1) // apart
    if last < first:
        return None
    taps = apart * np.arange(first, last + 1) + pad - np.arange(apart)[:, None]
    taps = np.where((taps >= 0) & (taps < weights), taps, weights)
    size = -(-after // apart)
    return Phases(taps, (-first, size - 1 + last - (before - 1)), size)


def to_phases(edit: Edit, node: Node) -> bool:
    """A transposed convolution is a convolution and a pick."""
    found = read(edit, node)
    if found is None or found.apart == (1, 1) or 0 in (*found.x.shape, *found.shape):
        return False
    op = replace(found.op, weights=_undilated(found.op), dilation=(1, 1))
    # Output pixel s * q + p sees the taps p, p + s, ... only: s phases, each an ordinary
    # convolution with about 1/s of the taps, woven together by the pick. No zeros are multiplied.
    axes = []
    for i, side in enumerate(sides(op.channels_last)):
        before, after = found.x.shape[side], (found.shape[side] - 1) * op.strides[i] + 1
        along = phases(op.weights.shape[i], found.apart[i], op.padding[i][0], before, after)
        if along is None:
            return edit.refuse(node, "a transposed convolution that sees no pixel")
        axes.append(along)
    changed = replace(
        op,
        weights=_weights(op, *axes),
        bias=np.zeros(op.bias.size * found.apart[0] * found.apart[1]),
        strides=(1, 1),
        padding=(axes[0].padding, axes[1].padding),
    )
    batch, channels = found.x.shape[0], changed.bias.size
    size = spatial([axis.size for axis in axes], channels, op.channels_last)
    conv = made(changed, [found.x], (batch, *size[1:]))
    pick = made(_pick(op, found.apart, found.shape), conv.outputs, found.shape)
    return edit.replace(node, *found.placed(conv, pick))


def _undilated(op: Conv) -> np.ndarray:
    """The weights with zeros between them in place of a dilation."""
    sizes = [(n - 1) * d + 1 for n, d in zip(op.weights.shape[:2], op.dilation, strict=True)]
    weights = np.zeros((*sizes, *op.weights.shape[2:]), op.weights.dtype)
    weights[:: op.dilation[0], :: op.dilation[1]] = op.weights
    return weights


def _weights(op: Conv, height: Phases, width: Phases) -> np.ndarray:
    """(taps, taps, inputs, groups * phases * phases * outputs), 0 where a phase has no weight."""
    padded = np.pad(op.weights, ((0, 1), (0, 1), (0, 0), (0, 0)))
    all_taps = padded[height.taps[:, :, None, None], width.taps[None, None]]
    phases_y, taps_y, phases_x, taps_x, inputs, _ = all_taps.shape
    apart = all_taps.reshape(phases_y, taps_y, phases_x, taps_x, inputs, op.groups, -1)
    return apart.transpose(1, 3, 4, 5, 0, 2, 6).reshape(taps_y, taps_x, inputs, -1)


def _pick(op: Conv, apart: tuple[int, int], shape: tuple[int, ...]) -> Pick:
    """The pixels that channels are: of each group, phase by phase."""
    height, width = (
        step * np.arange(shape[side])
        for step, side in zip(op.strides, sides(op.channels_last), strict=True)
    )
    own = op.bias.size // op.groups
    group, output = np.divmod(np.arange(op.bias.size), own)
    rows = np.stack([height // apart[0], height % apart[0] * apart[1] * own], 1)
    columns = np.stack([width // apart[1], width % apart[1] * own], 1)
    first = group * own * apart[0] * apart[1] + output
    channels = np.stack([first, *np.zeros((2, op.bias.size), int)], 1)
    return Pick(rows, columns, channels, op.channels_last)


RULES = Rules(named=(to_phases,))
