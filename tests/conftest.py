"""Test world: four forced host devices, shape types checked at run time, warnings are errors."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
