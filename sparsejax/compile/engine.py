"""Programs loaded into the C++ engine, and the custom call that runs one."""

import hashlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from sparsejax.compile.graph import Region
from sparsejax.compile.interpret import interpreter
from sparsejax.compile.lower import Lowered
from sparsejax.ops import _ffi

# With strips of 112 pixels MobileNet-v1 is as fast as with 224, and takes 40 % less scratch.
STRIP_PIXELS, WHOLE_PIXELS = 112, 400


def name_of(lowered: Lowered) -> str:
    """A name that says all that is in the program, and for which kernels it is packed."""
    digest = hashlib.sha256(_ffi.instruction_set().encode())
    digest.update(lowered.words.data)
    digest.update(lowered.floats.data)
    return digest.hexdigest()


def load(
    lowered: Lowered,
    *,
    name: str = "",
    strip_pixels: int = STRIP_PIXELS,
    whole_pixels: int = WHOLE_PIXELS,
) -> tuple[str, _ffi.Program]:
    """The packed program under its name; it lives as long as what is returned or an executable.

    Args:
        lowered: the program.
        name: must say all that the program contains; made from it when empty.
        strip_pixels: that a strip of a large map has, about.
        whole_pixels: up to which a map is two strips.
    """
    name = name or f"{name_of(lowered)} {strip_pixels} {whole_pixels}"
    return name, _ffi.Program(name, lowered.words, lowered.floats, strip_pixels, whole_pixels)


def region_call(region: Region, name: str, program: _ffi.Program) -> Callable:
    """The region as a function of its inputs that returns the list of its outputs.

    It takes any batch size (rows count as one image), and more leading axes under vmap.
    Derivatives, and what runs elsewhere than on a CPU, come from the interpreter.
    """
    reference = interpreter(region.nodes, region.inputs, region.outputs)
    item_axes = [int(region.form == "images")] * len(region.outputs)

    def run(*inputs: Float[Array, "..."]) -> list[Float[Array, "..."]]:
        results = [
            jax.ShapeDtypeStruct((*inputs[0].shape[:drop], *value.shape[drop:]), jnp.float32)
            for value, drop in zip(region.outputs, item_axes, strict=True)
        ]
        return list(_ffi.call("program", reference, results, *inputs, program=name))

    call = jax.custom_jvp(run)
    call.program = program  # type: ignore[attr-defined]  # alive as long as the function

    @call.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[list, list]:
        _, derivatives = jax.jvp(reference, primals, tangents)
        return call(*primals), derivatives

    return call
