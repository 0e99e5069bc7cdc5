"""Prints the files of the modules that the tests import, where they lie below the given folders."""

import sys
from pathlib import Path

import hypothesis  # noqa: F401
import jax
import pytest  # noqa: F401

import sparsejax  # noqa: F401

jax.numpy.ones(1)  # imports the rest of it
files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
roots = sorted(map(Path, filter(None, sys.path)), key=lambda root: -len(root.parts))
for file in map(Path, sorted(files)):
    root = next((root for root in roots if file.is_relative_to(root)), None)
    if root and file.suffix == ".py":
        copies = [Path(folder, file.relative_to(root)) for folder in sys.argv[1:]]
        print(*[f"{copy}\n" for copy in copies if copy.exists()], sep="", end="")
