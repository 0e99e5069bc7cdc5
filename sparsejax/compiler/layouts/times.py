"""The measured times that compile remembers on disk, for as long as nothing stands in the way.

The cache is a JSON file: $SPARSEJAX_CACHE, or sparsejax/times.json in the user's cache folder;
SPARSEJAX_CACHE=off stands for the process alone. Whatever it contains and wherever it points,
compile goes on: what cannot be read or written gives a warning.
"""

import contextlib
import json
import math
import os
import platform
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from sparsejax import text
from sparsejax.ops._ffi import instruction_set, kernels

LOCK_SECONDS = 2.0  # that a writer waits for another one; then it merges without the lock
MAX_BYTES = 1 << 26  # of a cache that is read: a million times
SHORTEST, LONGEST = 1e-6, 1e12  # microseconds that a step may have taken
MOST_COUNTED = 1 << 20


class Sample(NamedTuple):
    """What was measured of one thing: the fastest, and how often it was measured."""

    micros: float
    repeats: int

    def and_then(self, micros: float) -> "Sample":
        """With another measurement."""
        return Sample(min(self.micros, micros), self.repeats + 1)


UNKNOWN = Sample(math.inf, 0)
_of_process: dict[str, Sample] = {}  # where there is no file


def cache_path() -> Path | None:
    """Where the times are kept; None for nowhere."""
    named = os.environ.get("SPARSEJAX_CACHE", "")
    if named.lower() == "off":
        return None
    if named:
        return Path(named)
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = root if root.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:  # no HOME, and no such user
        text.warn(
            f"compile keeps no times: {error} Set SPARSEJAX_CACHE to a file, or to off.",
            UserWarning,
        )
        return None
    return root / "sparsejax" / "times.json"


@cache
def machine() -> str:
    """What makes times comparable: CPU, instruction set, version and kernels of the library."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        fields = [line.split(":", 1) for line in lines if line.startswith("model")]
        model = " ".join(dict.fromkeys(field[-1].strip() for field in fields)) or model
    except OSError:  # not Linux
        pass
    try:
        release = version("sparsejax")
    except PackageNotFoundError:  # a folder on the path, not installed
        release = "unknown"
    return f"{model} {instruction_set()} sparsejax {release} {kernels()} samples"


def read_cache() -> dict[str, Sample]:
    """The times that were measured on this machine; a damaged or foreign file gives a warning."""
    path = cache_path()
    if path is None:
        return dict(_of_process)
    try:
        return _read(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        text.warn(f"compile ignores its cache {path}: {error}", UserWarning)
        return {}


def write_cache(times: Mapping[str, Sample]) -> None:
    """Adds times to the file, and replaces it at once: nobody sees half of one, or loses theirs."""
    path = cache_path()
    if path is None:
        _of_process.update(times)
        return
    try:
        target = Path(os.path.realpath(path))  # a link stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.parent):
            known: dict[str, Sample] = {}
            with contextlib.suppress(ValueError, FileNotFoundError):  # damaged or foreign
                known = _read(target)
            _replace(target, json.dumps({"machine": machine(), "times": {**known, **times}}))
    except (OSError, ValueError) as error:
        text.warn(f"compile cannot write its cache {path}: {error}", UserWarning)


def _need_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError("it must be a regular file; SPARSEJAX_CACHE=off keeps no times")


def _read(path: Path) -> dict[str, Sample]:
    """The file's times; ValueError if it has none for this machine."""
    # Without O_NONBLOCK a named pipe would be waited for.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        _need_regular(status.st_mode)
        if status.st_size > MAX_BYTES:
            raise ValueError(f"it has {status.st_size} bytes, more than {MAX_BYTES}")
        text = file.read(MAX_BYTES)
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict) or not isinstance(content.get("times"), dict):
        raise ValueError("it has no times")
    if content.get("machine") != machine():
        raise ValueError(f"it is from {content.get('machine')!r:.200}, this is {machine()!r}")
    for key, sample in content["times"].items():
        if not _is_sample(sample):
            raise ValueError(f"{key!r:.200} took {sample!r:.200}, which is no time and count")
    return {key: Sample(float(m), count) for key, (m, count) in content["times"].items()}


def _is_sample(sample: object) -> bool:
    if not isinstance(sample, list) or len(sample) != 2:
        return False
    micros, count = sample
    if isinstance(micros, bool) or not isinstance(micros, int | float) or type(count) is not int:
        return False
    return SHORTEST <= micros <= LONGEST and 1 <= count <= MOST_COUNTED


def _replace(path: Path, text: str) -> None:
    """Replaces a regular file, or makes one."""
    mode = None
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        _need_regular(mode)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if mode is not None:
            os.chmod(name, stat.S_IMODE(mode))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, where there are such locks and nobody keeps it for too long."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows; a folder that can only be written
        yield
        return
    try:
        end = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)
