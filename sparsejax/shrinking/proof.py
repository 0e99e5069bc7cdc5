"""Does a smaller module do what the adapted program does? Which channels it counts, if not."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sparsejax.jaxprs.read import by_paths
from sparsejax.jaxprs.widths.fills import Removal
from sparsejax.jaxprs.widths.groups import Traced, traced
from sparsejax.jaxprs.widths.narrowing import CHANGES, shape
from sparsejax.jaxprs.widths.program import Program, Step
from sparsejax.shrinking.cut import Keep

COUNTED = "a sum over them, of which the module takes the mean"


def counted_by(
    apply_fn: Callable[..., Any],
    module_of: Callable[[Keep], Any],
    example: tuple[Any, ...],
    made: Traced,
    keep: Keep,
) -> dict[str, str]:
    """The groups that a smaller module counts, and where; the module is right if they stay whole.

    Args:
      apply_fn: the function of the module.
      module_of: the module with these channels.
      example: inputs.
      made: the large module, read.
      keep: which channels stay.

    Raises:
      ValueError: it cannot be called, or does something else, and it is not known why.
    """
    removal = Removal(made.spans, {made.runs[name]: np.asarray(own) for name, own in keep.items()})
    small = module_of(keep)
    try:
        program = traced(apply_fn, small, example).program
    except Exception as error:
        each = {name: module_of({name: own}) for name, own in keep.items()}
        alone = {name: _error(apply_fn, module, example) for name, module in each.items()}
        if not any(alone.values()):
            raise ValueError(
                f"shrink needs a {type(small).__name__} that can be called with fewer channels, "
                f"got {error!r}; pass its arrays as params and use small.apply."
            ) from error
        return {name: said for name, said in alone.items() if said}
    names = {run: name for name, run in made.runs.items()}
    found: dict[str, str] = {}
    for step, whose in differing(removal, made.program, program):
        span = _contracted_before(removal, step, whose) or _last_cut(removal, step)
        if span is None:
            raise ValueError(
                f"shrink needs a {type(small).__name__} that does with fewer channels what it did, "
                f"but {step.said} is another; pass its arrays as params and use small.apply."
            )
        runs = [run for run in made.spans.runs(span) if run in removal.keep]
        found |= {names[run]: step.said for run in runs}
    return found


def _last_cut(removal: Removal, step: Step) -> int | None:
    cut = [a for v in step.operands for a in v.axes if removal.removed(a) is not None]
    return cut[-1] if cut else None


def _contracted_before(removal: Removal, step: Step, program: Program) -> int | None:
    """The axis of the product that the step scales, if it was cut: as the width of heads."""
    makers = {v: own for own in program.steps for v in own.equation.outvars}
    for _ in range(4):
        own = [makers[v] for v in step.equation.invars if not hasattr(v, "val") and v in makers]
        if not own:
            return None
        step = own[0]
        for product in _products(step):
            (left, _), _ = product.equation.params["dimension_numbers"]
            axes = [product.operands[0].axes[axis] for axis in left]
            cut = [axis for axis in axes if removal.removed(axis) is not None]
            if cut:
                return cut[-1]
    return None


def _products(step: Step) -> list[Step]:
    if step.equation.primitive.name == "dot_general":
        return [step]
    return [own for body in step.bodies for inner in body.steps for own in _products(inner)]


def differing(removal: Removal, large: Program, small: Program) -> list[tuple[Step, Program]]:
    """What the smaller module does otherwise than the adapted program: steps, and whose they are.

    A module may divide by its width, as a norm does: then it is not what it was.
    """
    names = [[step.equation.primitive.name for step in own.steps] for own in (large, small)]
    if names[0] != names[1]:
        return [(large.steps[-1], large)]
    found = []
    for one, other in zip(large.steps, small.steps, strict=True):
        if not _alike(removal, one, other):
            found.append((one, large))
        for pair in zip(one.bodies, other.bodies, strict=True):
            found += differing(removal, *pair)
    return found


def _alike(removal: Removal, one: Step, other: Step) -> bool:
    name, params = one.equation.primitive.name, dict(one.equation.params)
    if name in CHANGES:
        params |= CHANGES[name](removal, one)
    plain = (int, float, str, tuple, np.dtype, type(None))
    given = other.equation.params
    pairs = [(v, given[k]) for k, v in params.items() if isinstance(v, plain)]
    return (
        [shape(removal, v) for v in one.results] == [v.aval.shape for v in other.equation.outvars]
        and all(a == b or repr(a) == repr(b) for a, b in pairs)  # NaN is like NaN
        and _literals(one) == _literals(other)
    )


def _literals(step: Step) -> list[str]:
    return [repr(v.val) for v in step.equation.invars if hasattr(v, "val")]


def _error(apply_fn: Callable[..., Any], module: Any, example: tuple[Any, ...]) -> str:
    """What a module says when it is called; "" if nothing."""
    arrays, call = by_paths(apply_fn, module)
    try:
        jax.eval_shape(call, arrays, *example)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
