"""What planned layers see: second moments of their inputs, found by tracing the function."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Float, Int

from sparsejax import tree
from sparsejax.doors import FUNCTION, PLAN, checked

# Equations whose output is the weight itself, in another dtype, shape or order, or masked.
CARRIES = (
    *("broadcast_in_dim", "convert_element_type", "copy", "name", "optimization_barrier", "pvary"),
    *("reshape", "select_n", "sharding_constraint", "squeeze", "stop_gradient", "transpose"),
)


@dataclass(frozen=True)
class LayerInputs:
    """The inputs of one planned layer: a dense layer is one group of rows, so is a convolution.

    `positions[g, o, i]` is where in the ravelled leaf the weight from input i to output o of group
    g lies. `squares[g, i]` is the sum of input i squared over all calibration rows (a patch of a
    convolution is a row), `gram[g]` the sum of outer products, None if it was not asked for.
    """

    positions: Int[np.ndarray, "groups outputs inputs"]
    squares: Float[np.ndarray, "groups inputs"]
    gram: Float[np.ndarray, "groups inputs inputs"] | None

    def to_matrices(self, leaf: Any) -> Any:
        """The leaf as (groups, outputs, inputs); NumPy stays NumPy, JAX stays JAX."""
        return leaf.reshape(-1)[self.positions]

    def from_matrices(self, matrices: Any, shape: tuple[int, ...]) -> Any:
        """The inverse of `to_matrices`."""
        return matrices.reshape(-1)[np.argsort(self.positions, axis=None)].reshape(shape)


class _Tag(NamedTuple):
    """A variable that holds a planned leaf, and which weight lies where in it."""

    path: str
    positions: np.ndarray


class _Seen:
    """What one trace has found."""

    def __init__(self, gram: bool):
        self.gram = gram
        self.positions: dict[str, np.ndarray] = {}
        self.moments: dict[str, Array] = {}
        self.lost: dict[str, str] = {}  # leaf -> the equation behind which it is no weight any more

    def add(self, tag: _Tag, positions: np.ndarray, rows: Float[Array, "groups rows inputs"]):
        """Count the rows that meet a weight."""
        if not np.array_equal(self.positions.setdefault(tag.path, positions), positions):
            raise ValueError(
                f"{tag.path}: calibrate needs a leaf to be used one way, got two products with "
                "different inputs; leave it out of the plan."
            )
        rows = rows.astype(jnp.float32)
        formula = "gri,grj->gij" if self.gram else "gri,gri->gi"
        own = jnp.einsum(formula, rows, rows, precision=lax.Precision.HIGHEST)
        self.moments[tag.path] = self.moments.get(tag.path, 0.0) + own


@checked(apply_fn=FUNCTION, plan=PLAN)
def calibrate(
    apply_fn: Callable[..., Any],
    params: Any,
    plan: Any,
    batches: Iterable[Any],
    *,
    gram: bool = True,
) -> dict[str, LayerInputs]:
    """The second moments of the inputs of every planned layer, by normalised path.

    Runs `apply_fn(params, *batch)` on each batch and looks into its jaxpr for the matrix product or
    convolution that each planned leaf takes part in, through `jit`, `remat`, `scan`, custom
    derivatives, transposes and casts. Sums are kept in float64 on the host, one batch at a time.
    Pass the function as it was before `accelerate`: custom calls cannot be looked into.

    Args:
      apply_fn: a pure function of the params, such as `model.apply`, in inference mode.
      params: any pytree.
      plan: the Plan whose leaves are looked for.
      batches: inputs; a tuple is passed as several arguments. Some hundred examples do.
      gram: whether to sum outer products (inputs**2 numbers a layer), which `sparse_gpt` and
        `exact_obs` need, or squares only, which are enough for `wanda`.

    Raises:
      ValueError: no batch came, a leaf meets no product or two different ones, or its inputs are
        not finite.

    Example:
      >>> calibration = sj.calibrate(model.apply, params, plan, [x, 2 * x])
      >>> calibration["body/kernel"].gram[0, 0, 0]
      np.float64(15.0)
    """
    arrays = {path: x for path, x in tree.leaves_with_paths(params) if hasattr(x, "shape")}
    _check_leaves(plan, arrays)
    found = _Seen(gram)

    @jax.jit
    def observe(values: dict[str, Any], inputs: tuple) -> dict[str, Array]:
        def call(values: dict[str, Any], *inputs: Any) -> Any:
            return apply_fn(tree.map_with_paths(lambda p, x: values.get(p, x), params), *inputs)

        closed = jax.make_jaxpr(call)(values, *inputs)
        tags = [_tag(plan, path, values[path]) for path in sorted(values)]
        operands = jax.tree.leaves((values, inputs))
        tags += [None] * (len(operands) - len(tags))
        found.moments = {}
        _run(closed.jaxpr, closed.consts, operands, tags, found)
        return found.moments

    sums: dict[str, Any] = {}
    batch = None
    for batch in batches:
        inputs = tuple(batch) if isinstance(batch, tuple) else (batch,)
        for path, part in observe(arrays, inputs).items():
            sums[path] = sums.get(path, 0.0) + np.asarray(part, np.float64)
    if batch is None:
        raise ValueError("calibrate needs at least one batch, got none; pass some inputs.")
    return {leaf.path: _inputs(leaf.path, sums, found) for leaf in plan.leaves}


def inputs_of(calibration: Mapping[str, LayerInputs], path: str, asker: str) -> LayerInputs:
    """A leaf's entry of a calibration, or a ValueError."""
    if path not in calibration:
        known = ", ".join(calibration) or "nothing"
        raise ValueError(
            f"{asker} needs the inputs of {path}, the calibration has {known}; "
            "call calibrate with this plan."
        )
    return calibration[path]


def _check_leaves(plan: Any, arrays: dict[str, Any]) -> None:
    for leaf in plan.leaves:
        there = tuple(arrays[leaf.path].shape) if leaf.path in arrays else "no such leaf"
        if there != leaf.shape:
            raise ValueError(
                f"calibrate needs the params that the plan was made for: {leaf.path} has shape "
                f"{leaf.shape} in the plan and {there} in the params; make the plan anew."
            )


def _tag(plan: Any, path: str, weights: Any) -> _Tag | None:
    if plan.get(path) is None:
        return None
    return _Tag(path, np.arange(math.prod(weights.shape), dtype=np.int32).reshape(weights.shape))


def _inputs(path: str, sums: dict[str, Any], found: _Seen) -> LayerInputs:
    if path not in sums:
        end = f"it ends in `{found.lost[path]}`" if path in found.lost else "it is not used"
        raise ValueError(
            f"{path}: calibrate found no matrix product or convolution with this leaf, {end}; "
            "leave it out of the plan, or calibrate the function before `accelerate` or `vmap`."
        )
    if not np.isfinite(sums[path]).all():
        raise ValueError(f"{path}: its inputs are not finite; look at the batches and the params.")
    moments = sums[path]
    if not found.gram:
        return LayerInputs(found.positions[path], moments, None)
    return LayerInputs(found.positions[path], np.einsum("gii->gi", moments).copy(), moments)


def _run(
    jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any], tags: Sequence[Any], seen: _Seen
) -> tuple[list[Any], list[Any]]:
    """Evaluate the jaxpr, counting what meets tagged variables; the outputs and their tags."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, operands, strict=True))
    marks: dict[Any, Any] = dict(zip(jaxpr.invars, tags, strict=True))
    read = lambda v: v.val if isinstance(v, core.Literal) else values[v]
    mark = lambda v: None if isinstance(v, core.Literal) else marks.get(v)
    for eqn in jaxpr.eqns:
        own = [mark(v) for v in eqn.invars]
        outputs, found = _equation(eqn, [read(v) for v in eqn.invars], own, seen)
        values |= zip(eqn.outvars, outputs, strict=True)
        marks |= zip(eqn.outvars, found, strict=True)
    return [read(v) for v in jaxpr.outvars], [mark(v) for v in jaxpr.outvars]


def _equation(
    eqn: Any, operands: list[Any], tags: list[Any], seen: _Seen
) -> tuple[Sequence[Any], Sequence[Any]]:
    name = eqn.primitive.name
    weights = [tag for tag in tags if tag is not None]
    if weights and name == "scan":
        return _scan(eqn, operands, tags, seen)
    body = _called(eqn)
    if weights and body is not None:
        return _run(body.jaxpr, body.consts, operands, tags, seen)
    for side, tag in enumerate(tags):
        if tag is not None and name in PRODUCTS:
            seen.add(tag, *PRODUCTS[name](eqn.params, side, tag.positions, operands))
    outputs = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    outputs = outputs if eqn.primitive.multiple_results else [outputs]
    carried = [_carried(eqn, i, tags) for i in range(len(outputs))]
    if name not in PRODUCTS and not any(carried):
        seen.lost |= {tag.path: name for tag in weights}
    return outputs, carried


def _carried(eqn: Any, index: int, tags: list[Any]) -> _Tag | None:
    """The tag of an output that is a planned leaf still."""
    held = tags[index : index + 1] if len(eqn.outvars) > 1 else [t for t in tags if t is not None]
    shape = eqn.outvars[index].aval.shape
    if eqn.primitive.name not in CARRIES or len(held) != 1 or held[0] is None:
        return None
    if eqn.primitive.name == "transpose":
        return held[0]._replace(positions=held[0].positions.transpose(eqn.params["permutation"]))
    if math.prod(shape) != held[0].positions.size:  # repeated by a broadcast
        return None
    return held[0]._replace(positions=held[0].positions.reshape(shape))


def _called(eqn: Any) -> core.ClosedJaxpr | None:
    """The one function that the equation calls with its own operands, if it is such a call."""
    if eqn.primitive.name in ("while", "cond", "shard_map"):
        return None
    bodies = [v for v in eqn.params.values() if isinstance(v, core.ClosedJaxpr | core.Jaxpr)]
    if len(bodies) != 1:
        return None
    body = bodies[0]
    closed = body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())
    return closed if len(closed.jaxpr.invars) == len(eqn.invars) else None


def _scan(
    eqn: Any, operands: list[Any], tags: list[Any], seen: _Seen
) -> tuple[list[Any], list[Any]]:
    """The scan with what its body counts as one more output; weights must be its constants."""
    params, body = eqn.params, eqn.params["jaxpr"]
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    split = num_consts + num_carry
    inside = [*tags[:num_consts], *[None] * (len(tags) - num_consts)]
    seen.lost |= {tag.path: "scan" for tag in tags[num_consts:] if tag is not None}
    before = seen.moments

    def step(carry: Any, xs: Any) -> tuple[Any, Any]:
        seen.moments = {}
        own = [*operands[:num_consts], *carry, *xs]
        outputs, _ = _run(body.jaxpr, body.consts, own, inside, seen)
        return outputs[:num_carry], (outputs[num_carry:], seen.moments)

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, (ys, parts) = lax.scan(step, operands[num_consts:split], operands[split:], **options)
    seen.moments = before
    for path, part in parts.items():
        seen.moments[path] = seen.moments.get(path, 0.0) + part.sum(0)
    return [*carry, *ys], [None] * len(eqn.outvars)


def _of_dot(params: Any, side: int, positions: np.ndarray, operands: list[Any]) -> tuple[Any, Any]:
    """The weight as (groups, outputs, inputs) and what it meets as (groups, rows, inputs)."""
    contracted, batch = params["dimension_numbers"]
    weights = _three_axes(positions, batch[side], contracted[side])
    return weights, _three_axes(operands[1 - side], batch[1 - side], contracted[1 - side])


def _three_axes(array: Any, batch: Sequence[int], contracted: Sequence[int]) -> Any:
    free = [axis for axis in range(array.ndim) if axis not in (*batch, *contracted)]
    sizes = [math.prod(array.shape[axis] for axis in axes) for axes in (batch, free, contracted)]
    return array.transpose([*batch, *free, *contracted]).reshape(sizes)


def _of_conv(params: Any, side: int, positions: np.ndarray, operands: list[Any]) -> tuple[Any, Any]:
    """As `_of_dot`, with the patches of the images as rows."""
    layout, groups = params["dimension_numbers"], params["feature_group_count"]
    if side != 1 or params["batch_group_count"] != 1:
        raise ValueError("calibrate needs weights to be a convolution's kernel; plan others dense.")
    weights = positions.transpose(layout.rhs_spec)
    patches = lax.conv_general_dilated_patches(
        operands[0].transpose(layout.lhs_spec).astype(jnp.float32),
        weights.shape[2:],
        params["window_strides"],
        params["padding"],
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["rhs_dilation"],
        precision=lax.Precision.HIGHEST,
    )
    num_inputs = math.prod(weights.shape[1:])
    rows = jnp.moveaxis(patches, 1, -1).reshape(-1, groups, num_inputs).swapaxes(0, 1)
    return weights.reshape(groups, -1, num_inputs), rows


PRODUCTS = {"dot_general": _of_dot, "conv_general_dilated": _of_conv}
