"""The kinds of node; the file of one has its class, how it is told, what it computes and runs as.

To add a kind is to write its file, like `pad.py`, and to import it here.
"""

from sparsejax.compiler.nodes import (
    affine,
    channels,
    composed,
    concat,
    conv,
    elementwise,
    group_norm,
    heads,
    known,
    line,
    linear,
    mean,
    norm,
    pad,
    parts,
    pick,
    pool,
    powers,
    resize,
    rotary,
    slopes,
    softmax,
    transposed,
    volumes,
)

# Layers take what is around them in the order of this list: a scale, a move of channels, padding.
# Averages come before scales, for to divide by a constant is a scale unless it counts taps.
KINDS = (
    parts.RULES,
    volumes.RULES,
    conv.RULES,
    linear.RULES,
    line.RULES,
    pool.RULES,
    mean.RULES,
    affine.RULES,
    composed.RULES,
    channels.RULES,
    concat.RULES,
    pad.RULES,
    transposed.RULES,
    pick.RULES,
    resize.RULES,
    elementwise.RULES,
    powers.RULES,
    slopes.RULES,
    known.RULES,
    norm.RULES,
    group_norm.RULES,
    softmax.RULES,
    heads.RULES,
    rotary.RULES,
)
