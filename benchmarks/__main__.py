"""Run the benchmarks, one after the other, each in a process of its own.

python -m benchmarks                     all of them
python -m benchmarks top_k kernels       these
python -m benchmarks --list              their names and what they measure
python -m benchmarks --results DIR       one NAME.json each
"""

import argparse
import ast
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import benchmarks


def names() -> list[str]:
    found = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return [name for name in found if not name.startswith("_")]


def what_it_measures(name: str) -> str:
    spec = importlib.util.find_spec(f"benchmarks.{name}")  # of a file or a folder
    source = Path(spec.origin).read_text()
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*names(), []], help="default: all")
    parser.add_argument("--list", action="store_true", help="show the names and stop")
    parser.add_argument("--results", type=Path, help="folder for one NAME.json each")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:14}{what_it_measures(name)}" for name in names()))
        return
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or names():
        print(f"\n{name}: {what_it_measures(name)}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if options.results:
            command += ["--json", str(options.results / f"{name}.json")]
        if subprocess.run(command).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}; what they said stands above.")


if __name__ == "__main__":
    main()
