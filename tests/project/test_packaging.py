"""What is shipped: a small wheel with the package alone, an sdist with all that a build needs."""

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNTIME = {"flax", "jax", "jaxtyping", "numpy", "optax", "orbax-checkpoint", "rich", "safetensors"}
RUNTIME |= {"scipy"}


def build(kind: str, out: Path) -> Path:
    """Builds with the developer's CMake cache: seconds."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (artefact,) = out.iterdir()
    return artefact


def check_contents(names: list[Path]):
    shipped = {name for name in names if name.parts[0] == "sparsejax"}
    files = (ROOT / "sparsejax").rglob("*")
    kinds = {".py", ".pyi", ".typed"}
    sources = {path.relative_to(ROOT) for path in files if path.suffix in kinds}
    assert Path("sparsejax/py.typed") in sources
    assert sources <= shipped
    assert [name.name.partition(".")[0] for name in shipped - sources] == ["_xla_ops"]
    assert all(name.parts[0].endswith(".dist-info") for name in set(names) - shipped)


def check_metadata(metadata: email.message.Message):
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w-]+", line)[0] for line in required} == RUNTIME
    assert {"experiments", "test", "docs"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata["License-File"] == "LICENSE"


def test_wheel_is_small_and_holds_the_package_alone(tmp_path):
    # One test, not three: they would build at the same time in the same CMake cache.
    path = build("wheel", tmp_path)
    assert path.stat().st_size < 2_000_000
    with zipfile.ZipFile(path) as archive:
        check_contents([Path(name) for name in archive.namelist()])
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        check_metadata(email.message_from_bytes(archive.read(metadata)))


def test_sdist_holds_what_a_build_needs_and_nothing_built(tmp_path):
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "LICENSE", "README.md", "xla_ops/CMakeLists.txt", "Makefile"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "xla_ops").rglob("*.*")}
    assert needed | sources <= names
    assert not [n for n in names if re.match(r"build/|\.ci/|demo-output/|.*\.so$|\.venv/", n)]
