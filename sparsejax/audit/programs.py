"""What XLA's optimised program says of itself."""

import math
import re
from typing import NamedTuple

SKIPPED = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")
_ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


class Program(NamedTuple):
    """An optimised program.

    Attributes:
        kernels: instructions that its entry runs.
        handed_bytes: of the values that one of them hands to another.
        constant_bytes: of the arrays in it, weights among them.
    """

    kernels: int
    handed_bytes: int
    constant_bytes: int


def read_program(text: str) -> Program:
    """The entry of a program in XLA's text form (`compiled.as_text()`)."""
    kernels = handed = constants = 0
    for line in text[text.index("\nENTRY") :].splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        is_root, shape, name = match.groups()
        constants += bytes_of(shape) if name == "constant" else 0
        if name not in SKIPPED:
            kernels += 1
            handed += 0 if is_root else bytes_of(shape)
    return Program(kernels, handed, constants)


def bytes_of(shape: str) -> int:
    """The bytes of all arrays in a shape as XLA writes it: `(f32[4,8]{1,0}, s32[])`."""
    sizes = ((int(bits or 8), dims.split(",")) for _, bits, dims in _ARRAY.findall(shape))
    return sum(bits * math.prod(int(d) for d in dims if d) // 8 for bits, dims in sizes)
