"""Test world: four forced host devices, an own cache; warnings are errors (pyproject.toml)."""

import os
import tempfile

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
# What compile measures is kept for this process alone, not in the user's cache.
_folder = tempfile.TemporaryDirectory()
os.environ.setdefault("SPARSEJAX_CACHE", f"{_folder.name}/times.json")
