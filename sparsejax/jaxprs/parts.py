"""Which leaves of a plan a product holds, as matrices, and where in them each weight lies."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.jaxprs.places import Labels, Site
from sparsejax.jaxprs.products import as_matrices
from sparsejax.plans.plan import Plan


class Part(NamedTuple):
    """A leaf of the plan, or what a product has of it: where its inputs are, and where it lies."""

    path: str
    groups: np.ndarray
    columns: np.ndarray
    positions: np.ndarray
    repeated: bool


def parts_of(site: Site, side: int, labels: Labels, plan: Plan) -> Iterator[Part]:
    """The leaves of the plan in an operand."""
    own = site.kinds[side].labels
    matrices = as_matrices(site.equation, side, own)
    for array in labels.owners(own):
        leaves = plan.slices(array)
        if not leaves:
            continue
        start = labels.starts[labels.paths.index(array)]
        for leaf, ids in zip(leaves, _slices_of(leaves, plan.shapes[array]), strict=True):
            position = np.full(math.prod(plan.shapes[array]) + 1, -1, np.int32)
            position[ids + 1] = np.arange(ids.size)
            inside = (matrices >= start) & (matrices < start + position.size - 1)
            own = position[np.where(inside, matrices - start + 1, 0)]
            yield from _blocks(leaf.path, own)


def _slices_of(leaves: Sequence[Any], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Where in the ravelled array the elements of each leaf are."""
    order = np.arange(math.prod(shape)).reshape(shape)
    for leaf in leaves:
        at = dict(leaf.at)
        yield order[tuple(at.get(axis, slice(None)) for axis in range(len(shape)))].ravel()


def _blocks(path: str, own: np.ndarray) -> Iterator[Part]:
    """The rows and columns of a leaf in the matrices of a product; -1 is another leaf's."""
    there = own >= 0
    alike = bool((there == there[:1]).all())
    for groups in [np.arange(len(own))] if alike else np.arange(len(own))[:, None]:
        mine = there[groups]
        if not mine.any():
            continue
        rows, columns = (np.flatnonzero(mine.any((0, axis))) for axis in (2, 1))
        if not mine[:, rows][:, :, columns].all():
            raise ValueError(
                f"{path}: calibrate needs whole rows and columns of a leaf in a product, got a "
                "mixture with others; leave it out of the plan."
            )
        positions = own[groups][:, rows][:, :, columns]
        repeated = len(groups) > 1 and bool((positions == positions[:1]).all())
        yield Part(path, groups, columns, positions[:1] if repeated else positions, repeated)
