"""Builds the runtime for WebAssembly with zig: four modules web/src/sparsejax-*.wasm.

    python web/build.py            # `make web`; needs the package ziglang

The sources are those of every other platform, with a fifth set of kernels (`wasm`, 4 lanes) and
without exceptions. `relaxed` fuses multiplications and additions where the engine can; `threads`
shares its memory with instances on other threads, where the page or Node allows it.
"""

import itertools
import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

WEB = Path(__file__).parent
ROOT = WEB.parent
Job = tuple[Path, list[str]]  # a file and its flags
OPS, OBJECTS = ROOT / "xla_ops", ROOT / "build" / "web"
# Kernels are compiled once for modules with and without threads, with what shared memory asks of
# all objects; all else is compiled once for both kinds of kernels.
ATOMICS = ["-matomics", "-mbulk-memory"]
KERNELS = {"simd": [], "relaxed": ["-mrelaxed-simd"]}
HOSTS = {"": [], "-threads": [*ATOMICS, "-fno-threadsafe-statics"]}
# Pages of 64 KB, and what a thread's instance needs to begin: web/src/modules.js
MEMORY = [
    *("--shared-memory", "--import-memory", "--initial-memory=16777216"),
    *("--max-memory=2147483648", "-z,stack-size=1048576"),
    *("--export=__stack_pointer", "--export=__wasm_init_tls", "--export=__tls_size"),
]
ZIG = [sys.executable, "-m", "ziglang", "c++", "-target", "wasm32-wasi"]
COMMON = [
    *("-std=c++17", "-msimd128", "-fno-exceptions", "-fno-rtti", "-ffp-contract=fast"),
    *("-fno-math-errno", "-ffunction-sections", "-fdata-sections", "-fvisibility=hidden", "-g0"),
    *("-DSPARSEJAX_THREADS=0", "-DSPARSEJAX_NO_TRAINING", f"-I{OPS}"),
]
TRAINING = ("bcr_matrix", "matrix", "run_bcr", "run_depthwise", "run_spmm")  # ops of training
HOST = ["-Os", "-DSPARSEJAX_TARGETS= TARGET(wasm)"]
SMALL = ["-Xclang", "-Oz"]  # 5 KB less where all but products are built with it
KERNEL = [  # vectorised by hand
    *("-O3", "-fno-vectorize", "-fno-slp-vectorize"),
    *("-DSPARSEJAX_TARGET=wasm", "-DSPARSEJAX_LANES=4", *ATOMICS),
]
# For size, 9 KB of the 400 that a module may take.
RARE = ("attention_query", "norm", "pool", "run_cached_attention")


def main() -> None:
    """Build the modules."""
    kernels, host = sources()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        parts = {name: compiled(threads, kernels, name, flags) for name, flags in KERNELS.items()}
        hosts = {name: compiled(threads, host, f"host{name}", HOSTS[name]) for name in HOSTS}
        for kind, name in itertools.product(KERNELS, HOSTS):
            linked([job.result() for job in (*parts[kind], *hosts[name])], kind + name)


def sources() -> tuple[list[Job], list[Job]]:
    """The kernels and the other files, with their flags."""
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
    host_flags = lambda file: HOST if file.stem == "run_product" else [*HOST, *SMALL]
    flags = lambda file: [*KERNEL, "-Os"] if file.stem in RARE else KERNEL
    return [(file, flags(file)) for file in kernels], [(file, host_flags(file)) for file in host]


def compiled(
    threads: ThreadPoolExecutor, jobs: list[Job], folder: str, flags: list[str]
) -> list[Future[Path]]:
    """The objects of files, in the making."""
    (OBJECTS / folder).mkdir(parents=True, exist_ok=True)

    def made(file: Path, own: list[str]) -> Path:
        to = OBJECTS / folder / f"{file.parent.name}_{file.stem}.o"
        run(*ZIG, *COMMON, *own, *flags, "-c", str(file), "-o", str(to))
        return to

    return [threads.submit(made, *job) for job in jobs]


def linked(objects: list[Path], name: str) -> None:
    """The module with the functions of sparsejax.h."""
    header = (OPS / "runtime" / "sparsejax.h").read_text()
    functions = re.findall(r"^SPARSEJAX_API .*?(sparsejax_\w+)\(", header, re.M)
    exports = [f"-Wl,--export={name}" for name in ("malloc", "free", *functions)]
    options = ["-mexec-model=reactor", "-O3", "-s", "-Wl,--gc-sections"]
    if name.endswith("threads"):
        options += [*ATOMICS, *(f"-Wl,{option}" for option in MEMORY)]
    module = WEB / "src" / f"sparsejax-{name}.wasm"
    run(*ZIG, *options, *map(str, objects), *exports, "-o", str(module))
    module.chmod(0o644)
    print(f"{module.relative_to(ROOT)}: {module.stat().st_size:,} bytes")


def run(*command: str) -> None:
    """Run it; what it says is shown if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    main()
