"""What `make` installs on a fresh machine: wheels alone, and for each target what it needs."""

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

# Named so by the Makefile: pip's reports of what it installed for each extra.
REPORTS = sorted(Path(sys.prefix).glob(".extra-*"))


def source_only(report: dict) -> list[str]:
    """The packages of a pip report that were not wheels: a fresh machine has to build them."""
    files = {
        f"{entry['metadata']['name']} {entry['metadata']['version']}": entry["download_info"]["url"]
        for entry in report["install"]
    }
    return [name for name, url in files.items() if not url.endswith(".whl")]


def closure(*extras: str) -> set[str]:
    """The names of all packages that extras of ours ask for, those of their packages included."""
    names: set[str] = set()
    open_ = [("sparsejax", extra) for extra in extras]
    seen = set(open_)
    while open_:
        package, extra = open_.pop()
        try:
            lines = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for wanted in map(Requirement, lines):
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                names.add(wanted.name.lower().replace("_", "-"))
                more = {(wanted.name, inner) for inner in ("", *wanted.extras)} - seen
                seen |= more
                open_ += more
    return names


def test_a_source_only_package_is_found_by_name():
    entry = lambda name, url: {
        "metadata": {"name": name, "version": "1.0"},
        "download_info": {"url": url},
    }
    wheel, sdist = "https://a/b-1.0-py3-none-any.whl", "https://a/promise-1.0.tar.gz"
    assert source_only({"install": [entry("b", wheel), entry("promise", sdist)]}) == ["promise 1.0"]


@pytest.mark.skipif(not REPORTS, reason="this environment was not made by make: no pip reports")
def test_make_installed_wheels_alone():
    found = {path.name: source_only(json.loads(path.read_text())) for path in REPORTS}
    assert not any(found.values()), (
        f"make installed source-only packages, which a fresh machine must build: {found}; "
        "take them out of these extras."
    )


def test_each_target_installs_what_it_needs_and_no_more():
    elsewhere = {
        "ray",
        "tensorflow-datasets",
        "promise",
        "mypy",
        "ruff",
        "pytest",
        "onnx",
        "pandas",
    }
    assert not closure("experiments") & {*elsewhere, "mkdocs", "scikit-learn", "clang-format"}
    assert not closure("test") & {"tensorflow-datasets", "promise", "mypy", "mkdocs"}
    assert not closure("lint") & {*elsewhere, "grain"} - {"mypy", "ruff"}
    assert not closure("docs") & {*elsewhere, "grain"}
