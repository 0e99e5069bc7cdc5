"""`compile`: the entry to the compiler."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from sparsejax import text
from sparsejax.compiler.compiled import CompiledFunction, Options, compile_function
from sparsejax.compiler.frozen import type_of
from sparsejax.compiler.layouts.zeros import counted_in
from sparsejax.doors import FUNCTION, PLAN, check_examples, checked
from sparsejax.jaxprs.widened import InFloat32
from sparsejax.plans.plan import Plan


@checked(apply_fn=FUNCTION, plan=PLAN)
def compile(
    apply_fn: Callable,
    params: Any,
    *example: Any,
    plan: Plan | None = None,
    tune: bool = True,
    precision: Literal["float32"] | None = None,
    real_arithmetic: bool = False,
    skip_zeros: bool = False,
) -> CompiledFunction:
    """The function x -> apply_fn(params, x) on packed sparse weights.

    The function is traced; constants, batch norm, bias, residual adds, gates and activations are
    drawn into convolutions and linear layers; and the largest regions of what is recognised run as
    one custom call each, in which every layer's weights are stored as runs fastest: CSR, blocks of
    2, 4 or 8 outputs, groups of 4 rows by mask, or dense. All else stays in XLA, so that the result
    is right for any model. On a GPU or TPU the same graph runs in XLA.

    A weight that is zero is never multiplied: where an activation is infinite or NaN, its product
    with a stored weight is what IEEE says, and with a pruned one it is nothing.

    Args:
        apply_fn: any function `apply_fn(params, *inputs)` that jax.jit could trace, such as
            `functools.partial(model.apply, train=False)`.
        params: its weights, any pytree; they become constants. JAX's arrays on a CPU and NumPy's
            read-only ones are shared, those of NumPy that could be written to are copied.
        example: inputs, or their `jax.ShapeDtypeStruct`. Other shapes are compiled when they come.
        plan: that the weights were trained with: the ways to store its patterns are tried in any
            case. What else may be faster is found from the zeros.
        tune: measure how each distinct layer's weights are stored best, where it will run, about
            0.1 s for each way to store them and at most 4 s of CPU time: the report says what was
            left to the next compile. Then the whole function is timed with inputs of noise against
            jax.jit of it, and without one kind of region after the other, for at most 10 s of CPU
            time: what XLA runs faster by 5 % goes back to it, and a function without zeros that is
            not faster here by 3 %. What was found holds for all shapes whose sides lie between the
            same powers of two, such as 5 to 8. Times are kept in $SPARSEJAX_CACHE or the user's
            cache folder, and for the process alone if that is "off". False: by a model of the
            kernels, which is fitted to the machine once (a quarter of a second).
        precision: "float32" computes models in bfloat16 and float16, which else stay in XLA, in
            float32: only their results are rounded to what they were, by 2^-9 of them (float16:
            2^-12). Where they differ from the model's own, these were rounded at each step.
        real_arithmetic: also rewrite sums and products where that saves operations and only numbers
            that are too large, too small or none tell the difference: x + x a becomes x (a + 1),
            which is another number where x is infinite, or where a is near -1. False: only where
            bounds that follow from the function itself exclude all that but rounding.
            `fast.report().laws` says what was rewritten.
        skip_zeros: also try, for each layer without zeros of its own whose input has many (behind a
            ReLU, more so where training made maps sparse: `sj.activations`), a product that skips
            those, and keep it where it is faster on the example, which must be real data. What is
            kept holds for images of the example's size, and for up to 16 rows or for more.

    A warning says at once where all stays in XLA (half precision, no layers), where a leaf of the
    plan does, and where the model looks like one in training (BatchNorm's statistics, dropout).

    Raises:
        TypeError: when apply_fn cannot be called, an example is no array, or a weight is traced.
        ValueError: when the precision is another, or zeros are to be skipped and there are no
            examples to count them in, or no measurements.

    Example:
        >>> fast = sj.compile(model.apply, params, x)
        >>> print(fast.report())
        >>> logits = jax.jit(fast)(x)
    """
    check_examples("compile", apply_fn, params, example)
    if precision not in (None, "float32"):
        raise ValueError(
            f'compile needs precision="float32" or none, got {precision!r}; leave it out for a '
            "model in float32."
        )
    apply_fn = InFloat32(apply_fn) if precision else apply_fn
    data = counted_in(example, tune) if skip_zeros else None
    options = Options(plan, tune, real_arithmetic, data)
    compiled = compile_function(apply_fn, params, jax.tree.map(type_of, example), options)
    for doubt in compiled._first().doubts:
        text.warn(doubt)
    return compiled
