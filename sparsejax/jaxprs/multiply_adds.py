"""Multiply-adds of each parameter, counted in the jaxpr of the function that uses it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sparsejax import text
from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs import Labels, Site, Sites, find_sites, multiply_adds_of
from sparsejax.jaxprs.moves import uniform
from sparsejax.jaxprs.read import by_paths


@checked(apply_fn=FUNCTION)
def multiply_adds(apply_fn: Callable, params: Any, *example: Any) -> dict[str, int]:
    """The multiply-adds that each leaf of the params takes part in, by normalised path.

    Counts convolutions and matrix products in one call `apply_fn(params, *example)`, batch and
    padding included, wherever they are nested: the body of a `scan` counts once a turn, that of a
    `while_loop` once, of a `cond` the larger branch, the shards of a `shard_map` all of them.
    Weights are followed through casts, transposes, slices, concatenations, masks, factors and every
    other function of single elements, and through factors of one number made of the inputs. The
    zeros of a dilated (transposed) convolution, look-ups, scales and shifts have no multiply-adds;
    leaves without any are left out. Weights that meet the inputs one by one are scales, unless what
    comes of it is only added up, by sums or one after the other as in a depthwise convolution
    written as shifted multiplies, and different weights of a leaf go into one number: then each
    multiply counts. A scale followed by its shift, or by a norm, is a scale. Pass the function as
    it was before `accelerate`: custom calls cannot be looked into.

    Warns (`SparsityWarning`) where weights reach a product in a way that cannot be followed, with
    the leaf and the primitive: masked by or added to data, joined with it, or picked by the number
    of a loop's turn.

    Example:
      >>> sj.multiply_adds(model.apply, params, x)["body/kernel"]
      96
    """
    check_examples("multiply_adds", apply_fn, params, example)
    arrays, call = by_paths(apply_fn, params)
    with tracing("multiply_adds"):
        closed = jax.make_jaxpr(call)(arrays, *example)
    shapes = {path: tuple(array.shape) for path, array in arrays.items()}
    labels, sites = _all_sites(closed, shapes)
    for path, primitive in sites.lost.items():
        text.warn(
            f"multiply_adds does not count all of {path}: it cannot follow it through "
            f"`{primitive}`; count that product by hand."
        )
    return _total(sites.found, labels, 0)


def _all_sites(closed: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[Labels, Sites]:
    """The products, those that are written out among them."""
    labels, sites = _labelled(closed, shapes, frozenset())
    if not sites.doubtful:
        return labels, sites
    fine, again = _labelled(closed, shapes, sites.doubtful)
    written = [site for site in again.found if site.equation.primitive.name == "mul"]
    found = [*sites.found, *(_relabelled(site, fine, labels) for site in written)]
    lost = {path: name for path, name in again.lost.items() if path in sites.doubtful}
    return labels, Sites(found, sites.lost | lost, sites.doubtful)


def _labelled(
    closed: Any, shapes: dict[str, tuple[int, ...]], fine: frozenset[str]
) -> tuple[Labels, Sites]:
    """The products: one label a leaf, which takes no memory, but for fine ones one a weight."""
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    spans = [max(sizes[path], 1) if path in fine else 1 for path in shapes]
    starts = np.cumsum([1, *spans])[:-1]
    coarse = frozenset(path for path in shapes if path not in fine and sizes[path] > 1)
    labels = Labels(tuple(shapes), starts, coarse)
    own = [  # a dict's leaves come first and in the order of its keys
        np.arange(start, start + sizes[path]).reshape(shape)
        if path in fine
        else uniform(start, shape)
        for start, (path, shape) in zip(starts, shapes.items(), strict=True)
    ]
    kinds = [*own, *[None] * (len(closed.jaxpr.invars) - len(own))]
    return labels, find_sites(closed, kinds, labels)


def _relabelled(site: Site, fine: Labels, labels: Labels) -> Site:
    """A written-out product with one label for its leaf."""
    kind = site.kinds[0]
    (leaf,) = fine.owners(kind.labels)
    own = np.where(kind.labels == 0, 0, labels.starts[labels.paths.index(leaf)])  # type: ignore[arg-type]
    return site._replace(kinds=(kind._replace(labels=own), site.kinds[1]))


def _total(sites: Sequence[Site], labels: Labels, depth: int) -> dict[str, int]:
    """The counts of the sites; of the branches of one `cond`, the largest."""
    counts: dict[str, int] = {}
    conds: dict[Any, dict[int, list[Site]]] = {}
    for site in sites:
        if len(site.choices) > depth:
            where, branch = site.choices[depth]
            conds.setdefault((where, site.steps), {}).setdefault(branch, []).append(site)
            continue
        size = site.times * multiply_adds_of(site.equation)
        for path, share in _shares(site, labels).items():
            counts[path] = counts.get(path, 0) + round(size * share)
    for branches in conds.values():
        totals = [_total(own, labels, depth + 1) for own in branches.values()]
        for path in set().union(*totals):
            most = max(total.get(path, 0) for total in totals)
            counts[path] = counts.get(path, 0) + most
    return dict(sorted(counts.items()))


def _shares(site: Site, labels: Labels) -> dict[str, float]:
    """Which share of a product's operand each leaf is; a leaf on both sides counts once."""
    shares: dict[str, float] = {}
    for kind in site.kinds:
        for path, count in labels.owners(kind.labels).items():
            shares[path] = max(shares.get(path, 0.0), count / kind.labels.size)  # type: ignore[union-attr]
    return shares
