"""Registers the compiled kernels with XLA and calls them; the only user of the extension."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import ManualAxisType
from jaxtyping import Shaped

from sparsejax.ops._extension import explained

try:
    from sparsejax import _xla_ops
    from sparsejax._xla_ops import Program as Program
except ImportError as _error:
    raise explained(_error) from None

Results = jax.ShapeDtypeStruct | Sequence[jax.ShapeDtypeStruct]

# The version is part of each target's name: an exported program must never meet other semantics.
TARGET = "sparsejax.{}.v1"


def _choose_instruction_set() -> None:
    wanted = os.environ.get("SPARSEJAX_ISA")
    if wanted and not _xla_ops.use(wanted):
        usable = ", ".join(_xla_ops.usable_isas())
        raise ImportError(
            f"SPARSEJAX_ISA needs an instruction set of this build and CPU ({usable}), "
            f"got {wanted!r}; choose one of them or unset it."
        )


_choose_instruction_set()
for _name, _handler in _xla_ops.targets().items():
    jax.ffi.register_ffi_target(TARGET.format(_name), _handler, platform="cpu")


def instruction_set() -> str:
    """The instruction set that the kernels use: avx512, avx2, sse2 or neon."""
    return str(_xla_ops.isa())


def call(
    name: str,
    reference: Callable[..., Any],
    results: Results,
    *operands: Shaped[Array, "..."],
    **attributes: Any,
) -> Any:
    """The kernel's results on CPU, those of `reference(*operands)` on any other platform.

    The platform is the one that the program is lowered for.
    """
    mesh = jax.sharding.get_abstract_mesh()
    sharding = jax.NamedSharding(mesh, jax.P()) if not mesh.empty else None
    operands = vary_alike(*operands)
    varying = _varying(operands[0])
    results = jax.tree.map(
        lambda result: jax.ShapeDtypeStruct(
            result.shape,
            result.dtype,
            sharding=sharding,
            manual_axis_type=ManualAxisType(varying=varying),
        ),
        results,
    )
    kernel = jax.ffi.ffi_call(TARGET.format(name), results, vmap_method="expand_dims")
    return jax.lax.platform_dependent(
        *operands, cpu=lambda *operands: kernel(*operands, **attributes), default=reference
    )


def vary_alike(*operands: Array) -> tuple[Array, ...]:
    """The operands, each varying over all mesh axes that any of them varies over.

    Done before a `custom_vjp`, it sums the gradients of what the devices share.
    """
    varying = frozenset[str]().union(*(_varying(operand) for operand in operands))
    return tuple(_vary(operand, varying) for operand in operands)


def zeros(result: jax.ShapeDtypeStruct, operand: Array) -> Array:
    """Zeros that vary over the mesh axes of `operand`, for a reference to differentiate at."""
    return _vary(jnp.zeros(result.shape, result.dtype), _varying(operand))


def _varying(operand: Array) -> frozenset[str]:
    """The mesh axes of an enclosing `shard_map` over which the operand differs."""
    return frozenset(jax.typeof(operand).manual_axis_type.varying)


def _vary(operand: Array, axes: frozenset[str]) -> Array:
    missing = tuple(sorted(axes - _varying(operand)))
    return jax.lax.pcast(operand, missing, to="varying") if missing else operand
