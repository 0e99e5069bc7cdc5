"""Test world: four forced host devices, an own cache; warnings are errors (pyproject.toml).

Nearly all of the suite's time is XLA compiling programs that run once or twice: at optimisation
level 0, and without the fusion emitters where they can be left out, that takes a third of the time.
The demo's test compiles as a user's process does.
"""

import importlib.metadata
import os
import tempfile

FLAGS = [
    "--xla_force_host_platform_device_count=4",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end at an unknown flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
# What compile measures is kept for this process alone, not in the user's cache.
_folder = tempfile.TemporaryDirectory()
os.environ.setdefault("SPARSEJAX_CACHE", f"{_folder.name}/times.json")
