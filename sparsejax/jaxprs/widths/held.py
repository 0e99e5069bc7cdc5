"""Where in an axis the units of its runs lie, and which positions stay when some go."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from sparsejax.jaxprs.widths.spans import Spans


class Held(NamedTuple):
    """Which unit of a run lies where in an axis: unit `units[i]` at `positions[i]`."""

    positions: np.ndarray
    units: np.ndarray


def held(spans: Spans, span: int) -> dict[int, Held]:
    """Where in the span the units of each of its runs lie."""
    span = spans.find(span)
    inner = list(_places(spans, span))
    if not inner:
        every = np.arange(spans.size(span))
        return {span: Held(every, every)}
    found: dict[int, list[Held]] = {}
    for positions, part in inner:
        for run, own in held(spans, part).items():
            units = np.repeat(own.units, positions.shape[1])
            found.setdefault(run, []).append(Held(positions[own.positions].ravel(), units))
    joined = lambda own: Held(*map(np.concatenate, zip(*own, strict=True)))
    return {run: joined(own) for run, own in found.items()}


def kept(spans: Spans, span: int, keep: Mapping[int, np.ndarray]) -> np.ndarray:
    """Which positions stay; runs that `keep` does not name stay whole."""
    stay = np.ones(spans.size(span), bool)
    for run, own in held(spans, span).items():
        if run in keep:
            stay[own.positions[~keep[run][own.units]]] = False
    return stay


def _places(spans: Spans, span: int) -> Iterator[tuple[np.ndarray, int]]:
    """For each part or factor of what is no run: in row i all places of its i-th position."""
    parts, factors = spans.parts(span), spans.factors(span)
    if len(parts) > 1:
        start = 0
        for part in parts:
            yield np.arange(start, start + spans.size(part))[:, None], part
            start += spans.size(part)
    elif len(factors) > 1:
        order = np.arange(spans.size(span)).reshape([spans.size(f) for f in factors])
        for axis, factor in enumerate(factors):
            yield np.moveaxis(order, axis, 0).reshape(spans.size(factor), -1), factor
