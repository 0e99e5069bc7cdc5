"""The cores that this process may use and binding to them, as far as the system has it: Linux."""

import os
import platform
import re
import sys
from collections.abc import Collection
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> list[int]:
    """Those that this process may run on; all of the machine where the system does not tell."""
    ask = getattr(os, "sched_getaffinity", None)
    return sorted(ask(0)) if ask else list(range(os.cpu_count() or 1))


def bind(cores: Collection[int]) -> bool:
    """Keep this process and those that it will start on these cores; whether the system does it."""
    order = getattr(os, "sched_setaffinity", None)
    if order:
        order(0, set(cores))
    return order is not None


def use_one_core() -> None:
    """Make XLA use one thread, on the last core if it can be bound; called before jax runs."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if not bind(usable_cores()[-1:]):
        print(f"{platform.system()} binds no process to a core: it may wander.", file=sys.stderr)


def cpu_name() -> str:
    """The processor as Linux calls it, elsewhere as Python does."""
    text = CPUINFO.read_text(errors="replace") if CPUINFO.exists() else ""
    names = re.findall(r"model name\s*: (.*)", text)
    return names[0] if names else platform.processor() or platform.machine()
