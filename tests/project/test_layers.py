"""Imports point one way."""

import ast
import functools
import re
from pathlib import Path

import pytest

import sparsejax
from sparsejax.plans.plan import PATTERNS

LAYERS = [
    {"tree", "text", "doors", "arrays", "html_pages", "memory", "_xla_ops"},
    {"deploy", "threshold", "top_k"},
    {"patterns"},
    {"plans"},
    {"reparams", "penalties"},
    {"masks"},
    {"ops", "flax_bridge"},
    {"jaxprs"},
    {"activations"},
    {"algorithms", "studies", "compiler", "distill", "nn", "training"},
    {"budgets", "federated", "shrinking"},
    {"before", "post", "pruning", "quantizers", "soft", "sparse_training", "structured"},
    {"audit", "reports", "search"},
    {"__init__"},
    {"__main__"},
]
COMPILER = [
    {"graph", "frozen"},
    {"engine"},
    {"nodes"},
    {"passes", "layouts"},
    {"regions"},
    {"reports", "shelf"},
    {"build"},
    {"court"},
    {"hand_back", "precedents"},
    {"compiled"},
    {"entry"},
    {"files"},
    {"__init__"},
]
EXPERIMENTS = [
    {"data"},
    {"models", "recipes", "runs"},
    {"settings"},
    {"papers", "pages"},
    {"demo"},
    {"__main__"},
]
ROOT = Path(sparsejax.__file__).parent
ROOMS = {  # of xla_ops -> whose headers its files include
    "simd": {"simd"},
    "threads": {"threads"},
    "kernels": {"kernels", "simd"},
    "engine": {"engine", "kernels", "threads"},
    "files": {"files", "engine", "kernels"},
    "runtime": {"runtime", "engine", "files", "kernels", "threads"},
    "bind": {"bind", "engine", "files", "kernels", "threads", "xla", "nanobind"},
}


@functools.cache
def parsed(file):
    return ast.parse(file.read_text())


def imports(file):
    """All dotted names that a file imports; our own from below the package."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.ImportFrom) and node.module in ("sparsejax", "experiments"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
    ("package", "layers"),
    [("sparsejax", LAYERS), ("sparsejax.compiler", COMPILER), ("experiments", EXPERIMENTS)],
)
def test_imports_point_one_way(package, layers):
    level = {name: depth for depth, layer in enumerate(layers) for name in layer}
    root = ROOT.parent.joinpath(*package.split("."))
    for file in root.rglob("*.py"):
        own = file.relative_to(root).parts[0].removesuffix(".py")
        for name in imports(file):
            if name.startswith(f"{package}."):
                layer = name.removeprefix(f"{package}.").split(".")[0]
                assert layer == own or level[layer] < level[own], f"{file} imports {name}"


def test_experiments_do_without_the_benchmarks():
    for file in ROOT.with_name("experiments").rglob("*.py"):
        assert not any(name.startswith("benchmarks") for name in imports(file)), file


def test_what_is_slow_to_import_is_imported_where_it_is_called():
    """scipy.stats would be a third of what `import sparsejax` takes, scipy.special a tenth."""
    for file in ROOT.rglob("*.py"):
        for node in parsed(file).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                assert not any(str(name).startswith("scipy.") for name in names), file


def test_only_nn_and_the_bridge_import_flax():
    importers = {
        file.relative_to(ROOT).parts[0]
        for file in ROOT.rglob("*.py")
        if any(name.split(".")[0] == "flax" for name in imports(file))
    }
    assert importers == {"flax_bridge.py", "distill", "nn"}


def includes(room):
    """All headers that the files of a room of `xla_ops` include, with the file."""
    for file in sorted(ROOT.with_name("xla_ops").joinpath(room).glob("*.[ch]*")):
        for name in re.findall(r'^ *# *include *[<"]([^>"]+)', file.read_text(), re.MULTILINE):
            yield file, name


@pytest.mark.parametrize("room", ROOMS)
def test_includes_point_one_way(room):
    assert set(ROOMS) == {
        path.name for path in ROOT.with_name("xla_ops").iterdir() if path.is_dir()
    }
    for file, name in includes(room):
        known = name.partition("/")[0] in ROOMS[room]
        standard = re.fullmatch(r"\w+|(arm_neon|stddef|stdint|sys/mman|unistd)\.h", name)
        assert known or standard, f"{file} includes {name}"


@pytest.mark.parametrize("room", ["simd", "kernels"])
def test_kernels_do_without_the_standard_library(room):
    # Its templates would be merged across instruction sets. The table is compiled once.
    for file, name in includes(room):
        assert "/" in name or name in ("cstdint", "arm_neon.h") or file.stem == "kernels", file


def test_every_kernel_is_listed():
    kernels = ROOT.with_name("xla_ops") / "kernels"
    text = (kernels / "kernels.def").read_text()
    listed = re.findall(r"^(?:(?:TABLE|TRAINING)\(\w+, |PART\()(\w+)\)$", text, re.MULTILINE)
    assert sorted([*listed, "kernels", "table"]) == sorted(
        file.stem for file in kernels.glob("*.cc")
    )


def test_nothing_asks_what_class_a_pattern_is():
    patterns = {pattern.__name__ for pattern in PATTERNS}
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                assert not asked & patterns, f"{file}:{node.lineno} has a case for {asked}"
