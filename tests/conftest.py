"""Test world: four forced host devices, an own cache; warnings are errors (pyproject.toml).

Nearly all of the suite's time is XLA compiling programs that run once or twice: at optimisation
level 0, and without the fusion emitters where they can be left out, that takes a third of the time.
JAX makes an MLIR context for each program that it lowers and keeps it, and the more are alive, the
longer takes the next (20 ms of a small program's 40 without others, 60 with 1,000): here all share
one, but for what is compiled while another program is lowered.
What a user's process compiles is what `make demo` compiles.
"""

import gc
import importlib.metadata
import os
import sys
import tempfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

QUICK_TO_COMPILE = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end at an unknown flag
    QUICK_TO_COMPILE += [
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    ]
DEVICES = "--xla_force_host_platform_device_count=4"
os.environ.setdefault("XLA_FLAGS", " ".join([DEVICES, *QUICK_TO_COMPILE]))
# What was compiled once is read from there by the other worker, by programs that tests start, and
# at the next run.
PROGRAMS = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / "build" / "test-programs"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}
for _name, _value in PROGRAMS.items():
    os.environ.setdefault(_name.upper(), str(_value))
    jax.config.update(_name, type(_value)(os.environ[_name.upper()]))
# What compile measures is kept for this process alone, not in the user's cache.
_folder = tempfile.TemporaryDirectory()
os.environ.setdefault("SPARSEJAX_CACHE", f"{_folder.name}/times.json")

_new_context = mlir.make_ir_context
_shared_context = _new_context()
mlir.make_ir_context = lambda: _new_context() if ir.Context.current else _shared_context

_generators: list[np.random.Generator] = []  # that modules of the tests draw from
_compiled = 0
_compiled_before = 0  # of which no program is alive


def pytest_collection_finish():
    """What was imported stays: the collector, 7 % of the time, need not look at it again."""
    modules = [module for name, module in sys.modules.items() if name.startswith("tests.")]
    _generators.extend(module.RNG for module in modules if hasattr(module, "RNG"))
    gc.freeze()
    gc.set_threshold(50_000, 10, 20)


@pytest.fixture(autouse=True, scope="module")
def few_programs_alive():
    """A thousand take half a gigabyte; between files, since tests of one share programs."""
    global _compiled_before
    yield
    if _compiled - _compiled_before > 1000:
        jax.clear_caches()
        _compiled_before = _compiled


@pytest.fixture(autouse=True)
def own_numbers(request):
    """What a test draws hangs on its name alone, not on the tests before it in the process."""
    own = np.random.default_rng(zlib.crc32(request.node.nodeid.encode())).bit_generator.state
    for generator in _generators:
        generator.bit_generator.state = own


@pytest.fixture(autouse=True)
def typical_machine(monkeypatch):
    """What compile chooses hangs on no machine, nor on what else this one does."""
    from sparsejax.compiler import compiled
    from sparsejax.compiler.layouts import calibrate, tune
    from sparsejax.compiler.reports.verdict import Verdict
    from tests.costs import COSTS

    monkeypatch.setattr(calibrate, "costs", lambda: COSTS)
    monkeypatch.setattr(tune, "other_sets", list)
    monkeypatch.setattr(compiled, "judge", lambda court, *_: (court, Verdict({})))


def pytest_terminal_summary(terminalreporter):
    """What the time went into, whatever else the machine did."""
    terminalreporter.write_line(f"{_compiled} programs were compiled")


def _count(event: str, seconds: float, **_: object) -> None:
    global _compiled
    _compiled += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)
