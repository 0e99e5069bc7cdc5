"""What is not installed is named when it is imported, with what to do."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import optax
import pytest

import sparsejax as sj
from experiments.runs.ray_engine import work_on_ray
from experiments.runs.scalars import also_to_tensorboard
from sparsejax.ops._extension import SUFFIX, explained
from sparsejax.training.keras_bridge import _optimizer_class

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path):
    """The folder of a package without its extension."""
    folder = tmp_path / "here" / "sparsejax"
    folder.mkdir(parents=True)
    (folder / "_xla_ops.pyi").touch()
    return folder


def make_sources(package):
    (package.parent / "xla_ops").mkdir()
    (package.parent / "xla_ops" / "CMakeLists.txt").touch()


def no_extension(package, monkeypatch):
    return r"has none: build it with `pip install \.` in the sources\.$"


def sources_alone(package, monkeypatch):
    make_sources(package)
    return r"has none, as it is the sources: run `make build` in \S*/here and use its \.venv\.$"


def sources_that_hide_an_install(package, monkeypatch):
    make_sources(package)
    installed = package.parents[1] / "site" / "sparsejax"
    installed.mkdir(parents=True)
    (installed / f"_xla_ops{SUFFIX}").touch()
    monkeypatch.setattr(sys, "path", [str(installed.parent)])
    return rf"and hides the one in {re.escape(str(installed))}: start Python in another folder"


def for_another_python(package, monkeypatch):
    (package / "_xla_ops.cpython-39-sparc-linux-gnu.so").touch()
    return r"has none for this Python \(\S+\) but _xla_ops\.cpython-39-sparc-linux-gnu\.so: build"


def damaged(package, monkeypatch):
    (package / f"_xla_ops{SUFFIX}").touch()
    return r"cannot load the one in \S+ \(why\): build it on this machine"


CASES = (no_extension, sources_alone, sources_that_hide_an_install, for_another_python, damaged)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_missing_extension_says_what_is_the_matter(package, monkeypatch, case):
    monkeypatch.setattr(sys, "path", [])
    message = case(package, monkeypatch)
    assert re.search(message, str(explained(ImportError("why"), package)))


def said_by(code, folder):
    """The last line of an error, in a Python that knows no editable install (-S)."""
    path = [str(folder), *(entry for entry in sys.path if entry not in {str(ROOT), ""})]
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {path}; {code}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1 and "circular" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_sources_without_an_extension_do_not_blame_a_circular_import(tmp_path):
    ignored = shutil.ignore_patterns("_xla_ops.*.so", "__pycache__")
    shutil.copytree(ROOT / "sparsejax", tmp_path / "sparsejax", ignore=ignored)
    said = said_by("import sparsejax", tmp_path)
    assert said.startswith("ImportError: sparsejax needs its compiled extension; ")


@pytest.mark.parametrize("module", ["experiments", "experiments.demo", "benchmarks"])
def test_a_module_without_its_extra_names_it(module):
    hide = "sys.modules.update(grain=None, tyro=None, jax=None)"
    said = said_by(f"{hide}; import runpy; runpy.run_module({module!r}, alter_sys=True)", ROOT)
    assert "`experiments`" in said and "jax" in said and "make setup" in said


EXTRAS = {
    "matplotlib.pyplot": (lambda: sj.reports.plot(sj.Plan(())), r"pip install 'sparsejax\[plot\]'"),
    "keras": (lambda: sj.training.KerasOptimizer(optax.sgd(0.1)), "pip install keras"),
    "flwr.client": (
        lambda: sj.federated.flower_strategy(*[None] * 2, min_clients=2),
        r"pip install 'sparsejax\[federated\]'",
    ),
    "orbax.checkpoint": (lambda: sj.checkpoint("."), "pip install 'orbax-checkpoint>="),
    "tensorboardX": (lambda: also_to_tensorboard(*[None] * 3), r"'sparsejax\[tensorboard\]'"),
    "tyro": (
        lambda: runpy.run_path(ROOT / "sparsejax/__main__.py"),
        r"pip install 'sparsejax\[cli\]'",
    ),
    "ray": (lambda: work_on_ray([], None, done=None), r"pip install 'sparsejax\[ray\]'"),
}


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_is_named_with_what_installs_it(package, monkeypatch):
    call, message = EXTRAS[package]
    _optimizer_class.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises((ImportError, SystemExit), match=message):
        call()
