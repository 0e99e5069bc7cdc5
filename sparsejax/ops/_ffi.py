"""Registers the compiled kernels with XLA; the only user of the extension."""

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax import Array

from sparsejax.ops._extension import explained

try:
    from sparsejax import _xla_ops
    from sparsejax._xla_ops import Program as Program
    from sparsejax._xla_ops import kept_bytes as kept_bytes
    from sparsejax._xla_ops import packed_bytes as packed_bytes
    from sparsejax._xla_ops import read_model as read_model
    from sparsejax._xla_ops import usable_isas as usable_isas
    from sparsejax._xla_ops import usual_plan as usual_plan
except ImportError as _error:
    raise explained(_error) from None

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


CODES = {
    enum: {re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower(): code for name, code in codes.items()}
    for enum, codes in _xla_ops.codes().items()
}
"""Of each enum in xla_ops' codes.def, the number that each name stands for."""


def instruction_set() -> str:
    """The instruction set that the kernels use: avx512, avx2, sse2 or neon."""
    return str(_xla_ops.isa())


def kernels() -> str:
    """The checksum of the compiled kernels: other kernels take other times."""
    return f"{zlib.crc32(Path(_xla_ops.__file__).read_bytes()):08x}"


def custom_call(
    name: str, results: Sequence[jax.ShapeDtypeStruct], *operands: Array, **attributes: Any
) -> Sequence[Array]:
    """The results of a compiled kernel, on one device's own arrays."""
    kernel = jax.ffi.ffi_call(TARGET.format(name), list(results))
    return kernel(*operands, **attributes)
