"""Builds the product kernels for aarch64, checks them under emulation, counts what they execute."""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arm.tools import FOLDER, ROOT, MissingError, Program, analyser, compiler, emulator

HERE = Path(__file__).parent
# As xla_ops/CMakeLists.txt builds them.
FLAGS = (
    *("-std=c++17", "-O3", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"),
    *("-DSPARSEJAX_TARGET=neon", "-DSPARSEJAX_LANES=4", f"-I{ROOT / 'xla_ops'}"),
)
LANES, TURNS = 4, 100
CPU = "neoverse-n1"  # stands for Cortex-A76, too
LONGEST = 400  # instructions of a loop
JUMP = re.compile(r"(?:b\.\w+|cbn?z\t\w+,|tbn?z\t\w+, #\w+,)\s+([0-9a-f]+) <")
INSTRUCTION = re.compile(r"^ +([0-9a-f]+):\t[0-9a-f]+ +\t(.*)$", re.MULTILINE)


class Way(NamedTuple):
    """A layout of xla_ops/kernels/product.h: its Storage and its block."""

    storage: int
    block: int


class Layer(NamedTuple):
    """Output channels, input channels, pixels."""

    rows: int
    cols: int
    pixels: int


LAYERS = (Layer(512, 512, 196), Layer(256, 256, 784), Layer(1024, 1024, 49))
WAYS = {
    **{f"1x1, {block} rows interleaved": Way(0, block) for block in (1, 2, 4)},
    **{f"{block}x1 blocks": Way(1, block) for block in (4, 8)},
}
SPARSITY = 0.9
Blocks = Counter[tuple[int, int]]  # address and number of instructions -> how often it ran


class Bench(NamedTuple):
    """The built program and the tools."""

    emulator: Program
    analyser: Program | None
    code: dict[int, str]  # address -> instruction


def build(*, with_analyser: bool) -> Bench:
    """Build the program and the plugin.

    Raises:
        MissingError: when a tool cannot be had.
    """
    prefix, qemu = compiler(), emulator()
    mca = analyser() if with_analyser else None
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = ("*product*.cc", "elementwise.cc")  # the activations are of the second
    kernels = sorted(str(file) for name in names for file in (ROOT / "xla_ops").rglob(name))
    program, plugin = str(FOLDER / "multiply"), str(FOLDER / "blocks.so")
    _compile(f"{prefix}g++", *FLAGS, "-static", *kernels, str(HERE / "multiply.cc"), "-o", program)
    _compile("gcc", "-O2", "-shared", "-fPIC", str(HERE / "blocks.c"), "-o", plugin)
    listing = Program(f"{prefix}objdump").run("-d", program)
    code = {int(address, 16): text for address, text in INSTRUCTION.findall(listing)}
    return Bench(qemu, mca, code)


def _compile(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr}")


def compiler_version() -> str:
    """Counts are comparable only between equal compilers."""
    return Program(f"{compiler()}g++").run("--version").splitlines()[0]


def count(bench: Bench, way: Way, layer: Layer) -> dict[str, Any]:
    """Executed instructions and fmla of one multiplication, per useful fmla.

    A useful fmla is one nonzero times four pixels. The difference of runs with more and with fewer
    repeats leaves out everything that packs and prepares.
    """
    arguments = [*map(str, (*way, *layer)), str(SPARSITY)]
    nonzeros = _check(bench, arguments)
    blocks = _profile(bench, [*arguments, "4"])
    blocks.subtract(_profile(bench, [*arguments, "2"]))
    useful = nonzeros * layer.pixels / LANES
    fmla = sum(times * _fmla(bench, block) for block, times in blocks.items()) / 2
    executed = sum(times * block[1] for block, times in blocks.items()) / 2
    found = {
        "instructions per useful fmla": executed / useful,
        "fmla per useful fmla": fmla / useful,
    }
    if bench.analyser:
        hot = max(blocks, key=lambda block: blocks[block] * _fmla(bench, block))
        loop = _text(bench, innermost_loop(bench.code, hot[0]))
        found["static fmla per cycle"] = fmla_per_cycle(bench.analyser, loop)
    return {name: round(value, 4) for name, value in found.items()}


def _check(bench: Bench, arguments: list[str]) -> int:
    """The number of nonzeros, once the result is found right."""
    try:
        return int(bench.emulator.run(str(FOLDER / "multiply"), *arguments, "1"))
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"multiply {' '.join(arguments)}: wrong result or crash, {error}"
        ) from error


def _profile(bench: Bench, arguments: list[str]) -> Blocks:
    """How often each block of instructions ran."""
    file = FOLDER / "blocks.txt"
    file.unlink(missing_ok=True)
    plugin = f"{FOLDER / 'blocks.so'},to={file}"
    try:
        bench.emulator.run("-plugin", plugin, str(FOLDER / "multiply"), *arguments)
        lines = file.read_text().splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise MissingError(f"qemu does not take the plugin: {words.strip()}") from error
    blocks: Blocks = Counter()
    for line in lines:
        address, instructions, times = line.split()
        blocks[int(address, 16), int(instructions)] += int(times)
    return blocks


def innermost_loop(code: dict[int, str], address: int) -> tuple[int, int]:
    """First address and number of instructions of the loop around an address.

    It ends with the first jump behind the address that leads back to before it; qemu cuts long
    loops into several blocks.
    """
    for end in range(address, address + 4 * LONGEST, 4):
        jump = JUMP.match(code.get(end, ""))
        if jump and int(jump[1], 16) <= address <= end:
            start = int(jump[1], 16)
            return start, (end - start) // 4 + 1
    raise ValueError(f"no loop around {address:x}")


def _text(bench: Bench, block: tuple[int, int]) -> list[str]:
    """The instructions of a block, without the targets of branches."""
    start, instructions = block
    lines = (bench.code.get(start + 4 * i, "nop") for i in range(instructions))
    return [re.sub(r"\b[0-9a-f]+ <.*>", "#0", line.split("//")[0]) for line in lines]


def _fmla(bench: Bench, block: tuple[int, int]) -> int:
    start, instructions = block
    return sum(bench.code.get(start + 4 * i, "").startswith("fmla\t") for i in range(instructions))


def fmla_per_cycle(analyser: Program, loop: list[str]) -> float:
    """What llvm-mca says of the loop when it runs again and again from the first-level cache."""
    arguments = ("-mtriple=aarch64", f"-mcpu={CPU}", f"-iterations={TURNS}")
    report = analyser.run(*arguments, text="\n".join(loop) + "\n")
    cycles = re.search(r"Total Cycles: +(\d+)", report)
    assert cycles, report
    return TURNS * sum(line.startswith("fmla") for line in loop) / int(cycles[1])
