"""What planned layers see: second moments of their inputs, found by tracing the function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from sparsejax.doors import FUNCTION, PLAN, checked
from sparsejax.jaxprs import Labels, Site, find_sites, run_tapped, three_axes
from sparsejax.jaxprs.moves import Label, uniform
from sparsejax.jaxprs.parts import parts_of
from sparsejax.jaxprs.read import by_paths
from sparsejax.plans.plan import Plan


@dataclass(frozen=True)
class LayerInputs:
    """The inputs of one planned layer: a dense layer is one group of rows, so is a convolution.

    `positions[g, o, i]` is where in the ravelled leaf the weight from input i to output o of group
    g lies. `squares[g, i]` is the sum of input i squared over all calibration rows (a patch of a
    convolution is a row), `gram[g]` the sum of outer products, None if it was not asked for.
    `at` is where the layer lies in a stack, as in the plan's leaf.
    """

    positions: Int[np.ndarray, "groups outputs inputs"]
    squares: Float[np.ndarray, "groups inputs"]
    gram: Float[np.ndarray, "groups inputs inputs"] | None
    at: tuple[tuple[int, int], ...] = ()

    def to_matrices(self, leaf: Any) -> Any:
        """The leaf as (groups, outputs, inputs); NumPy stays NumPy, JAX stays JAX."""
        return leaf.reshape(-1)[self.positions]

    def from_matrices(self, matrices: Any, shape: tuple[int, ...]) -> Any:
        """The inverse of `to_matrices`."""
        return matrices.reshape(-1)[np.argsort(self.positions, axis=None)].reshape(shape)


@checked(apply_fn=FUNCTION, plan=PLAN)
def calibrate(
    apply_fn: Callable[..., Any],
    params: Any,
    plan: Plan,
    batches: Iterable[Any],
    *,
    gram: bool = True,
) -> dict[str, LayerInputs]:
    """The second moments of the inputs of every planned layer, by normalised path.

    Runs `apply_fn(params, *batch)` on each batch and looks into its jaxpr for the matrix product or
    convolution that each planned leaf takes part in, where `multiply_adds` finds it: through `jit`,
    `remat`, `scan`, `while_loop`, `cond`, custom derivatives, casts, transposes, slices,
    concatenations, masks and constant factors, each layer of a stack (`Stacked`) by itself. Sums
    are kept in float64 on the host, one batch at a time. Pass the function as it was before
    `accelerate`: custom calls cannot be looked into.

    Args:
      apply_fn: a pure function of the params, such as `model.apply`, in inference mode.
      params: any pytree.
      plan: the Plan whose leaves are looked for.
      batches: inputs; a tuple is passed as several arguments. Some hundred examples do.
      gram: whether to sum outer products (inputs**2 numbers a layer), which `sparse_gpt` and
        `exact_obs` need, or squares only, which are enough for `wanda`.

    Raises:
      ValueError: no batch came, a leaf meets no product or two different ones, something that is
        no multiple of it does, or its inputs are not finite.

    Example:
      >>> calibration = sj.post.calibrate(model.apply, params, plan, [x, 2 * x])
      >>> calibration["body/kernel"].gram[0, 0, 0]
      np.float64(15.0)
    """
    arrays, call = by_paths(apply_fn, params)
    _check_leaves(plan, arrays)
    seen = _Seen(plan, gram)

    @jax.jit
    def observe(values: dict[str, Any], inputs: tuple) -> dict[str, dict[int, Array]]:
        closed = jax.make_jaxpr(call)(values, *inputs)
        return _moments(closed, jax.tree.leaves((values, inputs)), arrays, seen)

    sums: dict[str, Any] = {}
    batch = None
    for batch in batches:
        inputs = tuple(batch) if isinstance(batch, tuple) else (batch,)
        for path, parts in observe(arrays, inputs).items():
            own = sums.setdefault(path, {})
            for index, part in parts.items():
                own[index] = own.get(index, 0.0) + np.asarray(part, np.float64)
    if batch is None:
        raise ValueError("calibrate needs at least one batch, got none; pass some inputs.")
    return {leaf.path: _inputs(leaf, sums.get(leaf.path, {}), seen) for leaf in plan.leaves}


def inputs_of(calibration: Mapping[str, LayerInputs], path: str, asker: str) -> LayerInputs:
    """A leaf's entry of a calibration, or a ValueError."""
    if path not in calibration:
        known = ", ".join(calibration) or "nothing"
        raise ValueError(
            f"{asker} needs the inputs of {path}, the calibration has {known}; "
            "call calibrate with this plan."
        )
    return calibration[path]


def _check_leaves(plan: Plan, arrays: dict[str, Any]) -> None:
    for path, shape in plan.shapes.items():
        there = tuple(arrays[path].shape) if path in arrays else "no such leaf"
        if there != shape:
            raise ValueError(
                f"calibrate needs the params that the plan was made for: {path} has shape "
                f"{shape} in the plan and {there} in the params; make the plan anew."
            )


@dataclass
class _Seen:
    """What was found so far: where the parts of each leaf lie, and which leaves were lost where."""

    plan: Plan
    gram: bool
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def number(self, path: str, positions: np.ndarray) -> int:
        """The number of this part of a leaf."""
        known = self.parts.setdefault(path, [])
        for index, other in enumerate(known):
            if np.array_equal(other, positions):
                return index
        known.append(positions)
        return len(known) - 1


def _moments(
    closed: Any, operands: Sequence[Any], arrays: dict[str, Any], seen: _Seen
) -> dict[str, dict[int, Array]]:
    """The moments of each part of each planned leaf, in one run of the jaxpr."""
    labels, kinds = _labelled(seen.plan, arrays)
    kinds += [None] * (len(operands) - len(kinds))
    sites = find_sites(closed, kinds, labels)
    seen.lost |= sites.lost
    planned = [
        (site, side)
        for site in sites.found
        for side, kind in enumerate(site.kinds)
        if any(seen.plan.slices(path) for path in labels.owners(kind.labels))
    ]
    for site, side in planned:
        _check_site(site, side, labels)
    # The moments are taken inside the one run: the activations of a net would not fit beside it.
    taps = {
        (site.trail, side): tuple(step is not None for step in site.steps) for site, side in planned
    }

    def moment(equation: Any, side: int, inputs: Sequence[Any]) -> Array:
        rows = _rows(equation, side, inputs).astype(jnp.float32)
        formula = "gri,grj->gij" if seen.gram else "gri,gri->gi"
        return jnp.einsum(formula, rows, rows, precision=lax.Precision.HIGHEST)

    _, found = run_tapped(closed, operands, taps, moment)
    sums: dict[str, dict[int, Array]] = {}
    for site, side in planned:
        turns = tuple(step for step in site.steps if step is not None)
        own = found[site.trail, side][turns]
        for part in parts_of(site, side, labels, seen.plan):
            values = own[part.groups][:, part.columns]
            values = values[:, :, part.columns] if seen.gram else values
            if part.repeated:
                values = values.sum(0, keepdims=True)
            number = seen.number(part.path, part.positions)
            known = sums.setdefault(part.path, {})
            known[number] = known.get(number, 0.0) + values
    return sums


def _labelled(plan: Plan, arrays: dict[str, Any]) -> tuple[Labels, list[Label | None]]:
    """A label for each element of the planned arrays, and one for each other array."""
    kinds: list[Label | None] = []
    start, starts = 1, []
    for path, array in arrays.items():
        shape = tuple(array.shape)
        starts.append(start)
        size = math.prod(shape)
        if plan.slices(path):
            kinds.append(np.arange(start, start + size).reshape(shape))
        else:
            kinds.append(uniform(start, shape))
        start += max(size, 1) if plan.slices(path) else 1
    coarse = frozenset(path for path in arrays if not plan.slices(path))
    return Labels(tuple(arrays), np.array(starts), coarse), kinds


def _check_site(site: Site, side: int, labels: Labels) -> None:
    """The product is one whose rows are known, and the weight is a multiple of the leaf."""
    kind, name = site.kinds[side], site.equation.primitive.name
    path = ", ".join(labels.owners(kind.labels))
    if kind.through:
        raise ValueError(
            f"{path}: calibrate needs the leaf itself in its product, got what "
            f"`{sorted(kind.through)[0]}` made of it; leave it out of the plan."
        )
    backward = name == "conv_general_dilated" and (
        side != 1 or site.equation.params["batch_group_count"] != 1
    )
    if name not in ("dot_general", "conv_general_dilated") or backward:
        raise ValueError(
            f"{path}: calibrate needs weights to be a matrix or a convolution's kernel, got them "
            f"in `{name}`; leave it out of the plan."
        )


def _inputs(leaf: Any, sums: dict[int, Any], seen: _Seen) -> LayerInputs:
    path = leaf.path
    if not sums:
        lost = seen.lost.get(leaf.array_path)
        end = f"it cannot be followed through `{lost}`" if lost else "it meets none"
        raise ValueError(
            f"{path}: calibrate found no matrix product or convolution with this leaf, {end}; "
            "leave it out of the plan, or calibrate the function before `accelerate` or `vmap`."
        )
    parts, moments = _joined([(seen.parts[path][index], sums[index]) for index in sorted(sums)])
    together = np.concatenate([part.ravel() for part in parts])
    if together.size > leaf.num_weights or len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(
            f"{path}: calibrate needs a leaf to be used one way, got two products with "
            "different inputs; leave it out of the plan."
        )
    if np.unique(together).size != leaf.num_weights:
        raise ValueError(
            f"{path}: calibrate needs the whole leaf in products, got {together.size} of its "
            f"{leaf.num_weights} weights; leave it out of the plan."
        )
    moments = np.concatenate(moments)
    if not np.isfinite(moments).all():
        raise ValueError(f"{path}: its inputs are not finite; look at the batches and the params.")
    positions = np.concatenate(parts)
    if not seen.gram:
        return LayerInputs(positions, moments, None, leaf.at)
    return LayerInputs(positions, np.einsum("gii->gi", moments).copy(), moments, leaf.at)


def _joined(pairs: Sequence[tuple[np.ndarray, Any]]) -> tuple[list[np.ndarray], Any]:
    """Parts and moments; parts that see the same, such as slices of a fused kernel, are one."""
    parts: list[np.ndarray] = []
    moments: list[Any] = []
    for part, moment in pairs:
        for index, known in enumerate(moments):
            if np.array_equal(known, moment) and not np.isin(part, parts[index]).any():
                parts[index] = np.concatenate([parts[index], part], 1)
                break
        else:
            parts, moments = [*parts, part], [*moments, moment]
    return parts, moments


def _rows(equation: Any, side: int, inputs: Sequence[Any]) -> Any:
    """What a weight meets, as (groups, rows, inputs); the patches of images are rows."""
    params, other = equation.params, inputs[1 - side]
    if equation.primitive.name == "dot_general":
        contracted, batch = params["dimension_numbers"]
        return three_axes(other, batch[1 - side], contracted[1 - side])
    layout, groups = params["dimension_numbers"], params["feature_group_count"]
    kernel = inputs[1].transpose(layout.rhs_spec).shape
    patches = lax.conv_general_dilated_patches(
        other.transpose(layout.lhs_spec).astype(jnp.float32),
        kernel[2:],
        params["window_strides"],
        params["padding"],
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
        precision=lax.Precision.HIGHEST,
    )
    num_inputs = math.prod(kernel[1:])
    return jnp.moveaxis(patches, 1, -1).reshape(-1, groups, num_inputs).swapaxes(0, 1)
