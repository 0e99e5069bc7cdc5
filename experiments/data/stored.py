"""JSON and npz files: written whole or not at all; read, or a sentence that says what to do."""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

_UNREADABLE = (OSError, ValueError, RecursionError, EOFError, NotImplementedError)
_NO_ARCHIVE = (*_UNREADABLE, zipfile.BadZipFile, zlib.error, UnpicklingError, MemoryError)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one rename, so that a killed process leaves none or all of it."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def read_json(path: Path, parts: Mapping[str, type], cure: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: of the file.
        parts: names that it must have, and their types.
        cure: what to do with a damaged file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else; the message names the file and has the cure.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise damaged(path, error, cure) from None
    if not isinstance(found, dict):
        raise damaged(path, f"it holds {str(found)[:40]!r}", cure)
    for name, kind in parts.items():
        if type(found.get(name)) is not kind:
            reason = (
                f"{name!r} must be of type {kind.__name__}, it is {str(found.get(name))[:40]!r}"
            )
            raise damaged(path, reason, cure)
    return found


def read_npz(path: Path, shapes: Mapping[str, tuple[int, ...]], cure: str) -> dict[str, np.ndarray]:
    """All arrays of an npz file by name.

    Args:
        path: of the file.
        shapes: of the arrays that it must have.
        cure: what to do with a damaged file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else; the message names the file and has the cure.
    """
    try:
        with path.open("rb") as file:  # np.load leaves its own open when it fails
            stored = np.load(file)
            if isinstance(stored, np.ndarray):
                raise ValueError("it is a single array")
            arrays = dict(stored)
    except FileNotFoundError:
        raise
    except _NO_ARCHIVE as error:
        raise damaged(path, error, cure) from None
    for name, shape in shapes.items():
        there = arrays[name].shape if name in arrays else "missing"
        if there != shape:
            raise damaged(path, f"{name!r} must have shape {shape}, it is {there}", cure)
    return arrays


def damaged(path: Path, reason: object, cure: str) -> ValueError:
    """The error for a file that cannot be used."""
    words = (str(reason).splitlines() or [""])[0].rstrip(".") or type(reason).__name__
    return ValueError(f"{path} is damaged ({words}): {cure}.")
