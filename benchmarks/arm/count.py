"""Builds the kernels for aarch64, checks them under emulation, counts what they execute."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arm.tools import FOLDER, ROOT, MissingError, Program, analyser, compiler, emulator

HERE = Path(__file__).parent
PLUGIN = FOLDER / "blocks.so"
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


class Case(NamedTuple):
    """What is counted: the arguments of a program but for the repeats, and its useful work.

    Attributes:
        program: `multiply` or `passes`, of the sources beside this one.
        arguments: as its first lines say.
        pixels: how often each number that it prints is used.
    """

    program: str
    arguments: tuple[str, ...]
    pixels: int = 1


LAYERS = ((512, 512, 196), (256, 256, 784), (1024, 1024, 49))  # rows, cols, pixels
WAYS = {  # storage and block of xla_ops/kernels/product.h
    **{f"1x1, {block} rows interleaved": (0, block) for block in (1, 2, 4)},
    **{f"{block}x1 blocks": (1, block) for block in (4, 8)},
}
MAPS = ((32, 112, 1), (64, 112, 2), (512, 14, 1), (1024, 7, 1))  # channels, size, stride
SPARSITY = 0.9


def _cases() -> Iterator[tuple[str, Case]]:
    for name, way in WAYS.items():
        for layer in LAYERS:
            arguments = (*map(str, (*way, *layer)), str(SPARSITY))
            yield f"{name}, {_by(layer)}", Case("multiply", arguments, layer[2])
    for channels, size, stride in MAPS:
        arguments = ("depthwise", str(channels), str(size), str(stride))
        yield f"depthwise 3x3, {_by((channels, size, size))} / {stride}", Case("passes", arguments)
    for kind in ("affine", "add", "silu"):
        yield f"{kind}, 512x14x14", Case("passes", (kind, "512", "14", "1"))


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


CASES = dict(_cases())
Blocks = Counter[tuple[int, int]]  # address and number of instructions -> how often it ran


class Bench(NamedTuple):
    """The built program and the tools."""

    emulator: Program
    analyser: Program | None
    code: dict[str, dict[int, str]]  # program -> address -> instruction


def build(*, with_analyser: bool) -> Bench:
    """Build the program and the plugin.

    Raises:
        MissingError: when a tool cannot be had.
    """
    prefix, qemu = compiler(), emulator()
    mca = analyser() if with_analyser else None
    FOLDER.mkdir(parents=True, exist_ok=True)
    products = ("kernels/product*.cc", "engine/p*_product.cc", "engine/product_layout.cc")
    windows = ("kernels/window.cc", "kernels/depthwise_strips.cc", "kernels/columns.cc")
    sources = {"multiply": products, "passes": (*windows, "kernels/pool.cc")}
    code = {name: _built(prefix, name, files) for name, files in sources.items()}
    build_plugin()
    return Bench(qemu, mca, code)


def build_plugin() -> None:
    """Build what counts."""
    compiled("gcc", "-O2", "-shared", "-fPIC", str(HERE / "blocks.c"), "-o", str(PLUGIN))


def _built(prefix: str, name: str, sources: Sequence[str]) -> dict[int, str]:
    """The instructions of a program, which is built of its own source and these."""
    sources = (*sources, "kernels/elementwise.cc")  # which has the activations
    kernels = sorted(str(file) for each in sources for file in (ROOT / "xla_ops").glob(each))
    program = str(FOLDER / name)
    compiled(f"{prefix}g++", *FLAGS, "-static", *kernels, str(HERE / f"{name}.cc"), "-o", program)
    listing = Program(f"{prefix}objdump").run("-d", program)
    return {int(address, 16): text for address, text in INSTRUCTION.findall(listing)}


def compiled(*command: str) -> None:
    """Run a compiler; end with what it says when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr}")


def compiler_version() -> str:
    """Counts are comparable only between equal compilers."""
    return Program(f"{compiler()}g++").run("--version").splitlines()[0]


def count(bench: Bench, case: Case) -> dict[str, Any]:
    """Executed instructions and fmla of one pass, per useful fmla.

    A useful fmla is one nonzero, or one tap inside or outside of the image, times four pixels; of
    elementwise kernels, four numbers that come out. The difference of runs with more and with fewer
    repeats leaves out everything that packs and prepares.
    """
    useful = _check(bench, case) * case.pixels / LANES
    blocks = _added(bench, case, 2, 4)
    code = bench.code[case.program]
    fmla = sum(times * _fmla(code, block) for block, times in blocks.items()) / 2
    found = {
        "instructions per useful fmla": _instructions(blocks) / 2 / useful,
        "fmla per useful fmla": fmla / useful,
    }
    if bench.analyser and fmla:
        hot = max(blocks, key=lambda block: blocks[block] * _fmla(code, block))
        loop = _text(code, innermost_loop(code, hot[0]))
        found["static fmla per cycle"] = fmla_per_cycle(bench.analyser, loop)
    return {name: round(value, 4) for name, value in found.items()}


def executed(bench: Bench, case: Case) -> int:
    """Instructions of one more repeat."""
    return _instructions(_added(bench, case, 1, 2))


def _added(bench: Bench, case: Case, fewer: int, more: int) -> Blocks:
    blocks = _profile(bench, case, more)
    blocks.subtract(_profile(bench, case, fewer))
    return blocks


def _instructions(blocks: Blocks) -> int:
    return sum(times * block[1] for block, times in blocks.items())


def _check(bench: Bench, case: Case) -> int:
    """What the program prints, once the result is found right."""
    try:
        return int(bench.emulator.run(str(FOLDER / case.program), *case.arguments, "1"))
    except subprocess.CalledProcessError as error:
        command = f"{case.program} {' '.join(case.arguments)}"
        raise SystemExit(f"{command}: wrong result or crash, {error}") from error


def _profile(bench: Bench, case: Case, repeats: int) -> Blocks:
    """How often each block of instructions ran."""
    file = FOLDER / "blocks.txt"
    file.unlink(missing_ok=True)
    command = (str(FOLDER / case.program), *case.arguments, str(repeats))
    try:
        bench.emulator.run("-plugin", f"{PLUGIN},to={file}", *command)
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


def _text(code: dict[int, str], block: tuple[int, int]) -> list[str]:
    """The instructions of a block, without the targets of branches."""
    start, instructions = block
    lines = (code.get(start + 4 * i, "nop") for i in range(instructions))
    return [re.sub(r"\b[0-9a-f]+ <.*>", "#0", line.split("//")[0]) for line in lines]


def _fmla(code: dict[int, str], block: tuple[int, int]) -> int:
    start, instructions = block
    return sum(code.get(start + 4 * i, "").startswith("fmla\t") for i in range(instructions))


def fmla_per_cycle(analyser: Program, loop: list[str]) -> float:
    """What llvm-mca says of the loop when it runs again and again from the first-level cache."""
    arguments = ("-mtriple=aarch64", f"-mcpu={CPU}", f"-iterations={TURNS}")
    report = analyser.run(*arguments, text="\n".join(loop) + "\n")
    cycles = re.search(r"Total Cycles: +(\d+)", report)
    assert cycles, report
    return TURNS * sum(line.startswith("fmla") for line in loop) / int(cycles[1])
