"""What the C library does with freed memory: keeps it, or gives it back to the system."""

import ctypes
import sys
from typing import Any

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # parameters of glibc's mallopt


def keep_freed_memory() -> bool:
    """Keep memory that is freed for the next call, rather than give it back to the system.

    XLA on CPU takes the memory of a program's arrays anew in each call and frees it behind it.
    glibc gives large arrays back to the system then, which clears every page of the next ones: half
    of a training step of MobileNet-v1. With this the step takes half the time, and the process
    keeps the most memory that it ever had. To be called once, before jax computes anything.

    Large pages save some more, which only the environment can ask for:
    `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`, from glibc 2.35 on.

    Returns:
      Whether that is so now; False where the C library is not glibc, and nothing is changed.

    Example:
      >>> kept = sj.keep_freed_memory()
    """
    mallopt = _function("mallopt")
    if mallopt is None:
        return False
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    return {mallopt(*option) for option in wanted} == {1}  # each of them is said


def give_memory_back() -> None:
    """Give back what was freed, of each thread; C libraries other than glibc need no telling."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    """A function of glibc's, None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
