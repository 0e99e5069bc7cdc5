"""Imports point one way."""

import ast
from pathlib import Path

import sparsejax

LAYERS = [
    {"tree", "text", "doors", "arrays", "_xla_ops"},
    {"top_k"},
    {"patterns"},
    {"plans"},
    {"reparams", "penalties"},
    {"masks"},
    {"ops", "nn"},
    {"jaxprs"},
    {"algorithms", "studies", "compiler", "training"},
    {"before", "post", "pruning", "quantizers", "soft", "sparse_training", "structured"},
    {"reports"},
    {"__init__"},
]
ROOT = Path(sparsejax.__file__).parent


def imports(file):
    """All dotted names that a file imports; sparsejax's own from below the package."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "sparsejax":
            yield from (f"sparsejax.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_imports_point_one_way():
    level = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
    for file in ROOT.rglob("*.py"):
        own = file.relative_to(ROOT).parts[0].removesuffix(".py")
        for name in imports(file):
            if name.startswith("sparsejax."):
                layer = name.split(".")[1]
                assert layer == own or level[layer] < level[own], f"{file} imports {name}"


def test_only_nn_imports_flax():
    importers = {
        file.name for file in ROOT.rglob("*.py") if any("flax" in n for n in imports(file))
    }
    assert importers <= {"nn.py"}
