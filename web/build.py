"""Builds the runtime for WebAssembly with zig: web/src/sparsejax-simd.wasm and -relaxed.wasm.

    python web/build.py            # `make web`; needs the package ziglang

The sources are those of every other platform, with a fifth set of kernels (`wasm`, 4 lanes) and
without threads and exceptions. The second module fuses multiplications and additions where the
engine can.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WEB = Path(__file__).parent
ROOT = WEB.parent
OPS, OBJECTS = ROOT / "xla_ops", ROOT / "build" / "web"
MODULES = {"simd": [], "relaxed": ["-mrelaxed-simd"]}
ZIG = [sys.executable, "-m", "ziglang", "c++", "-target", "wasm32-wasi"]
COMMON = [
    *("-std=c++17", "-msimd128", "-fno-exceptions", "-fno-rtti", "-ffp-contract=fast"),
    *("-fno-math-errno", "-ffunction-sections", "-fdata-sections", "-fvisibility=hidden", "-g0"),
    *("-DSPARSEJAX_THREADS=0", "-DSPARSEJAX_NO_TRAINING", f"-I{OPS}"),
]
TRAINING = ("bcr_matrix", "matrix", "run_bcr", "run_depthwise", "run_spmm")  # ops of training
HOST = ["-Os", "-DSPARSEJAX_TARGETS= TARGET(wasm)"]
KERNELS = [  # vectorised by hand
    *("-O3", "-fno-vectorize", "-fno-slp-vectorize"),
    *("-DSPARSEJAX_TARGET=wasm", "-DSPARSEJAX_LANES=4"),
]
RARE = ("norm", "pool")  # kernels for size, 6 KB of the 400 that a module may take


def main() -> None:
    """Build both modules."""
    for name, flags in MODULES.items():
        folder = OBJECTS / name
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            jobs = [threads.submit(compiled, *job, flags, folder) for job in sources()]
        objects = [job.result() for job in jobs]
        module = WEB / "src" / f"sparsejax-{name}.wasm"
        linked(objects, module)
        print(f"{module.relative_to(ROOT)}: {module.stat().st_size:,} bytes")


def sources() -> list[tuple[Path, list[str]]]:
    """The files with their flags."""
    listed = re.findall(
        r"^(?:TABLE\(.*, |PART\()(\w+)\)", (OPS / "kernels/kernels.def").read_text(), re.M
    )
    kernels = [OPS / "kernels" / f"{name}.cc" for name in (*listed, "table")]
    host = [file for room in ("engine", "files") for file in sorted((OPS / room).glob("*.cc"))]
    host = [file for file in host if file.stem not in TRAINING]
    runtime = (
        OPS / "runtime" / f"{name}.cc" for name in ("program_runs", "sequence_runs", "sparsejax")
    )
    host += [OPS / "kernels" / "kernels.cc", *runtime, WEB / "system.cc"]
    flags = lambda file: [*KERNELS, "-Os"] if file.stem in RARE else KERNELS
    return [*((file, HOST) for file in host), *((file, flags(file)) for file in kernels)]


def compiled(file: Path, own: list[str], flags: list[str], folder: Path) -> Path:
    """The object of a file."""
    made = folder / f"{file.parent.name}_{file.stem}.o"
    run(*ZIG, *COMMON, *own, *flags, "-c", str(file), "-o", str(made))
    return made


def linked(objects: list[Path], module: Path) -> None:
    """The module with the functions of sparsejax.h."""
    header = (OPS / "runtime" / "sparsejax.h").read_text()
    functions = re.findall(r"^SPARSEJAX_API .*?(sparsejax_\w+)\(", header, re.M)
    exports = [f"-Wl,--export={name}" for name in ("malloc", "free", *functions)]
    options = ["-mexec-model=reactor", "-O3", "-s", "-Wl,--gc-sections"]
    run(*ZIG, *options, *map(str, objects), *exports, "-o", str(module))
    module.chmod(0o644)


def run(*command: str) -> None:
    """Run it; what it says is shown if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    main()
