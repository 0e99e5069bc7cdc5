"""The one primitive that all kernels are: plain JAX anywhere, a custom call on each CPU device.

A kernel says of each axis of its operands and results whether devices may share it out. From that
follow its batching, and how it runs on a mesh: each device calls the kernel on its own part.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jax.sharding import ManualAxisType

from sparsejax import arrays
from sparsejax.ops import placement
from sparsejax.ops.placement import Names


class Call(NamedTuple):
    """What is static of one call.

    Attributes:
        options: the op's own.
        results: their shapes and dtypes, with all axes.
        lead: how many leading axes vmap gave to every operand and result; an operand that is the
            same for all has size 1 there.
    """

    options: Any
    results: tuple[jax.ShapeDtypeStruct, ...]
    lead: int = 0


@dataclass(frozen=True, eq=False)
class Kernel:
    """Functions of a Call and arrays, by which one kernel is known.

    Attributes:
        local: the results by custom calls, for operands on one device.
        reference: the results in plain JAX, without the axes of vmap.
        axes: (options, ranks of the operands) -> names of each operand's and each result's axes.
            An axis whose name begins with a capital may be cut over devices; where no result has
            it, the devices' results are summed.
        jvp: (call, primals, tangents) -> (results, tangents), some of them `ad.Zero`.
        transpose: (call, cotangents, operands) -> a cotangent or None for each operand.
        supports: can the custom calls take these operands? Else the reference runs on CPU, too.
        free: the operand that may have any number of leading axes, if one can.
    """

    local: Callable[..., Sequence[Array]]
    reference: Callable[..., Sequence[Array]]
    axes: Callable[[Any, Sequence[int]], Names]
    jvp: Callable[..., Any]
    transpose: Callable[..., Any] | None = None
    supports: Callable[..., bool] = lambda call, operands: True
    free: int | None = None
    programs: dict = field(default_factory=dict)  # compiled, for calls outside of jit

    def names(self, call: Call, ranks: Sequence[int]) -> Names:
        """The names of all axes, with those of vmap."""
        operands, results = self.axes(call.options, [rank - call.lead for rank in ranks])
        lead = tuple(f"V{i}" for i in range(call.lead))
        return Names(
            tuple((*lead, *names) for names in operands),
            tuple((*lead, *names) for names in results),
        )

    def __call__(self, call: Call, *operands: Array) -> list[Array]:
        """The results, sharded as the operands' axes that may be cut."""
        alike = arrays.vary_alike(*operands)
        names = self.names(call, [operand.ndim for operand in operands])
        placed = placement.resharded(names, alike)
        return kernel_p.bind(*placed, kernel=self, call=call, devices=placement.needs_devices())


kernel_p = core.Primitive("sparsejax_kernel")
kernel_p.multiple_results = True


@kernel_p.def_abstract_eval
def _typed(*operands: Any, kernel: Kernel, call: Call, **_: Any) -> list[Any]:
    names = kernel.names(call, [operand.ndim for operand in operands])
    shardings = placement.result_shardings(names, operands)
    varying = operands[-1].manual_axis_type.varying
    return [
        operands[-1].update(
            shape=result.shape,
            dtype=result.dtype,
            weak_type=False,
            sharding=sharding,
            manual_axis_type=ManualAxisType(varying=varying),
        )
        for result, sharding in zip(call.results, shardings, strict=True)
    ]


@kernel_p.def_impl
def _run(*operands: Array, kernel: Kernel, call: Call, **_: Any) -> list[Array]:
    # Compiled under the kernel's own roof: a cache of JAX's would keep its packed weights alive.
    bind = partial(kernel_p.bind, kernel=kernel, call=call, devices=placement.needs_devices())
    program = kernel.programs.setdefault(call, jax.jit(bind))
    with jax.disable_jit(False):
        return program(*operands)


def _on_cpu(ctx: Any, *values: Any, kernel: Kernel, call: Call, **_: Any) -> Any:
    operands: list[Any] = [jax.core.ShapedArray(a.shape, a.dtype) for a in ctx.avals_in]
    if not kernel.supports(call, operands):
        return _elsewhere(ctx, *values, kernel=kernel, call=call)
    names = kernel.names(call, [operand.ndim for operand in operands])
    run: Callable = partial(_on_device, kernel, call, names)
    if not any(math.prod(array.shape) == 0 for array in (operands[-1], *call.results)):
        run = placement.partitioned(run, names, operands)
    return _lowered(run, ctx, operands, values)


def _elsewhere(ctx: Any, *values: Any, kernel: Kernel, call: Call, **_: Any) -> Any:
    operands = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    return _lowered(partial(in_plain_jax, kernel, call), ctx, operands, values)


def _lowered(function: Callable, ctx: Any, avals: Sequence[Any], values: Sequence[Any]) -> Any:
    """The IR of a function of arrays that know nothing of any mesh."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return mlir.lower_fun(function, multiple_results=True)(ctx.replace(avals_in=avals), *values)


mlir.register_lowering(kernel_p, _elsewhere)
mlir.register_lowering(kernel_p, _on_cpu, platform="cpu")


def _on_device(kernel: Kernel, call: Call, names: Names, *operands: Array) -> list[Array]:
    """The results for a device's own part of the operands."""
    sizes = {
        name: size
        for axes, operand in zip(names.operands, operands, strict=True)
        for name, size in zip(axes, operand.shape, strict=True)
        if placement.may_be_cut(name) and size != 1
    }
    results = tuple(
        jax.ShapeDtypeStruct(
            tuple(
                sizes.get(name, 1 if placement.may_be_cut(name) else size)
                for name, size in zip(axes, result.shape, strict=True)
            ),
            result.dtype,
        )
        for axes, result in zip(names.results, call.results, strict=True)
    )
    return list(kernel.local(call._replace(results=results), *operands))


def in_plain_jax(kernel: Kernel, call: Call, *operands: Array) -> list[Array]:
    """The results by the reference, mapped over the axes of vmap."""
    if call.lead == 0:
        return list(kernel.reference(call, *operands))
    size = call.results[0].shape[0]
    axes = [0 if operand.shape[0] == size else None for operand in operands]
    inner = [
        operand if axis == 0 else operand[0] for operand, axis in zip(operands, axes, strict=True)
    ]
    results = tuple(jax.ShapeDtypeStruct(r.shape[1:], r.dtype) for r in call.results)
    one = partial(in_plain_jax, kernel, call._replace(results=results, lead=call.lead - 1))
    return jax.vmap(one, axes)(*inner)


def _batched(
    operands: Sequence[Array], axes: Sequence[Any], *, kernel: Kernel, call: Call, **_: Any
) -> Any:
    """One call for all: a further axis in front of every operand, or of the free one alone."""
    is_mapped = [axis is not None for axis in axes]
    size = next(o.shape[axis] for o, axis in zip(operands, axes, strict=True) if axis is not None)
    results = tuple(jax.ShapeDtypeStruct((size, *r.shape), r.dtype) for r in call.results)
    free = call.lead == 0 and [i for i, mapped in enumerate(is_mapped) if mapped] == [kernel.free]
    moved = [
        jnp.moveaxis(o, axis, 0) if axis is not None else o if free else o[None]
        for o, axis in zip(operands, axes, strict=True)
    ]
    call = call._replace(results=results, lead=call.lead + (not free))
    return kernel(call, *moved), [0] * len(results)


batching.primitive_batchers[kernel_p] = _batched


def _jvp(
    primals: Sequence[Array], tangents: Sequence[Any], *, kernel: Kernel, call: Call, **_: Any
) -> Any:
    return kernel.jvp(call, primals, tangents)


def _transpose(
    cotangents: Sequence[Any], *operands: Any, kernel: Kernel, call: Call, **_: Any
) -> Any:
    assert kernel.transpose is not None
    return kernel.transpose(call, cotangents, operands)


ad.primitive_jvps[kernel_p] = _jvp
ad.primitive_transposes[kernel_p] = _transpose
