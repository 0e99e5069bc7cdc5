"""Programs loaded into the C++ engine, and the custom call that runs one."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad
from jaxtyping import Float

from sparsejax.compiler.engine.lower import lower, with_rows
from sparsejax.compiler.engine.program import Program
from sparsejax.compiler.graph.graph import Node, Region, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.ops import _ffi
from sparsejax.ops.kernel import Call, Kernel, in_plain_jax
from sparsejax.ops.placement import Names
from sparsejax.patterns.layout import Layout

STRIP_PIXELS, WHOLE_PIXELS, STRIP_FLOATS = _ffi.usual_plan()  # by the size of a core's cache
MAX_LOADED = 128  # numbers of rows that a region keeps a program for, on the same packed weights


def name_of(program: Program, isa: str = "") -> str:
    """A name that says all that is in the program, and for which kernels it is packed."""
    digest = hashlib.sha256((isa or _ffi.instruction_set()).encode())
    digest.update(program.words.data)
    digest.update(program.floats.data)
    return digest.hexdigest()


def load(
    program: Program,
    *,
    name: str = "",
    isa: str = "",
    strip_pixels: int = STRIP_PIXELS,
    whole_pixels: int = WHOLE_PIXELS,
    strip_floats: int = STRIP_FLOATS,
) -> tuple[str, _ffi.Program]:
    """The packed program under its name; it lives as long as what is returned or an executable.

    Args:
        program: to load.
        name: must say all that the program contains; made from it when empty.
        isa: the instruction set of the kernels, one of those that are usable; "" for that in use.
        strip_pixels: that a strip has, about; a map of fewer is one strip.
        whole_pixels: up to which a map is two strips at most.
        strip_floats: up to which a strip of the widest map of a size may have more pixels.
    """
    sizes = strip_pixels, whole_pixels, strip_floats
    name = name or " ".join(map(str, (name_of(program, isa), *sizes)))
    return name, _ffi.Program(name, program.words, program.floats, *sizes, isa)


class Programs:
    """The loaded programs of a region: one, or of rows one for each number of them.

    What is packed is shared by all numbers of rows. Dense weights stay in the nodes.
    """

    def __init__(self, region: Region, layouts: Mapping[Node, Layout], **strips: Any):
        self.region, self.layouts, self.strips = region, layouts, strips
        self._loaded: dict[int | None, tuple[str, _ffi.Program]] = {}

    def name_for(self, num_rows: int | None) -> str:
        """The name of the program for so many rows, None for images; it is loaded if need be."""
        loaded = self._loaded.get(num_rows)
        if loaded is None:
            loaded = self._loaded[num_rows] = self._shared(num_rows) or self._written(num_rows)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.pop(next(iter(self._loaded)))
        return loaded[0]

    def _shared(self, num_rows: int | None) -> tuple[str, _ffi.Program] | None:
        for name, program in list(self._loaded.values())[:1]:
            assert num_rows is not None
            name = f"{name.partition(' for ')[0]} for {num_rows}"
            other = program.with_rows(name, num_rows)
            assert other is not None, "rows that do not run alike"
            return name, other
        return None

    def _written(self, num_rows: int | None) -> tuple[str, _ffi.Program]:
        program = lower(self.region, self.layouts)
        own = program if num_rows is None else with_rows(program, num_rows)
        return load(own, **self.strips)


def region_call(region: Region, programs: Programs) -> Callable:
    """The region as a function of its inputs that returns the list of its outputs.

    It takes any batch size (rows count as one image), and more leading axes under vmap.
    Derivatives, and what runs elsewhere than on a CPU, come from the interpreter.

    Args:
        region: which one.
        programs: of this region, or of one that differs in the number of rows or images alone.
    """
    reference = interpreter(region.nodes, region.inputs, region.outputs)
    ops: list[Any] = [node.op for node in region.nodes]
    num_items = int(not region.rows)  # leading axes of an image; of rows, all but one

    def item_axes(value: Value) -> int:
        return num_items or len(value.shape) - 1

    meeting = any(op.rows_meet for op in ops)

    def axes(options: None, ranks: Sequence[int]) -> Names:
        free = lambda value: item_axes(value) - meeting  # of axes along which devices may cut
        names = lambda value: (
            *(f"{'N' if axis < free(value) else 'n'}{axis}" for axis in range(item_axes(value))),
            *("c" for _ in value.shape[item_axes(value) :]),
        )
        return Names(tuple(map(names, region.inputs)), tuple(map(names, region.outputs)))

    def on_device(call: Call, *inputs: Array) -> Sequence[Array]:
        num_rows = None if num_items else math.prod(call.results[0].shape[call.lead : -1])
        return _ffi.custom_call(
            "program", call.results, *inputs, program=programs.name_for(num_rows)
        )

    def jvp(call: Call, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        in_jax = partial(in_plain_jax, kernel, call)
        tangents = [ad.instantiate_zeros(tangent) for tangent in tangents]
        _, derivatives = jax.jvp(in_jax, tuple(primals), tuple(tangents))
        return kernel(call, *primals), derivatives

    kernel = Kernel(on_device, lambda call, *inputs: reference(*inputs), axes, jvp)

    def run(*inputs: Float[Array, "..."]) -> list[Float[Array, "..."]]:
        results = tuple(
            jax.ShapeDtypeStruct(
                (*inputs[0].shape[: item_axes(value)], *value.shape[item_axes(value) :]),
                jnp.float32,
            )
            for value in region.outputs
        )
        return kernel(Call(None, results), *inputs)

    programs.name_for(None if num_items else math.prod(region.outputs[0].shape[:-1]))
    return run
