"""Freed memory is kept: an array of the size of one before costs no new pages."""

import subprocess
import sys

import pytest

from sparsejax import memory

FAULTS = """
import ctypes, resource, sys
import sparsejax as sj
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults(size=64 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = sj.keep_freed_memory() if sys.argv[1] == "keep" else False
print(kept, *[faults() for _ in range(3)])
"""


def faults(how):
    """Whether memory is kept, and the pages that three arrays cost, one after the other."""
    command = [sys.executable, "-c", FAULTS, how]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return out[0] == "True", [int(number) for number in out[1:]]


@pytest.mark.skipif(memory._function("mallopt") is None, reason="the C library is not glibc")
def test_memory_is_kept_once_it_is_asked_for():
    kept, counts = faults("keep")
    assert kept and counts[1] + counts[2] < counts[0] / 4
    kept, counts = faults("leave")
    assert not kept and min(counts) > 0


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
    memory.give_memory_back()
