"""Why the compiled extension cannot be imported, and what to do."""

import sys
import sysconfig
from pathlib import Path

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")  # .cpython-311-x86_64-linux-gnu.so
PACKAGE = Path(__file__).parents[1]


def explained(error: ImportError, package: Path = PACKAGE) -> ImportError:
    """The error for a user when importing the extension of this package folder gave `error`."""
    sources = package.parent
    built = sorted(path.name for path in package.glob("_xla_ops*") if path.suffix != ".pyi")
    if f"_xla_ops{SUFFIX}" in built or (error.path or "").endswith(SUFFIX):
        matter = f"cannot load the one in {package} ({error})"
        cure = "build it on this machine with `pip install .` in the sources"
    elif built:
        matter = f"{package} has none for this Python (*{SUFFIX}) but {', '.join(built)}"
        cure = "build it with this Python by `pip install .` in the sources"
    elif not (sources / "xla_ops" / "CMakeLists.txt").exists():
        matter = f"{package} has none"
        cure = "build it with `pip install .` in the sources"
    elif installed := _installed_elsewhere(package):
        matter = f"{package} has none, as it is the sources, and hides the one in {installed}"
        cure = f"start Python in another folder, or run `make build` in {sources} and use its .venv"
    else:
        matter = f"{package} has none, as it is the sources"
        cure = f"run `make build` in {sources} and use its .venv"
    return ImportError(f"sparsejax needs its compiled extension; {matter}: {cure}.")


def _installed_elsewhere(package: Path) -> Path | None:
    """The folder of another sparsejax on the path that has an extension."""
    folders = (Path(entry) / "sparsejax" for entry in sys.path if entry)
    others = (folder for folder in folders if folder.resolve() != package.resolve())
    return next((folder for folder in others if (folder / f"_xla_ops{SUFFIX}").exists()), None)
