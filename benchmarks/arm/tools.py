"""What counting needs: a cross compiler, a qemu that takes plugins, and llvm-mca.

The first is the machine's own. The other two are Debian packages, which are unpacked under
build/arm_counts where the machine has them not; nothing of it needs root.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "arm_counts"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/llvm-19/lib")
PREFIX = "aarch64-linux-gnu-"
FIRST_MCA = 16  # older ones have no model of neoverse-n1


class MissingError(Exception):
    """A tool cannot be had; the message is the reason."""


class Program(NamedTuple):
    """A program and the folders of its libraries."""

    path: str
    libraries: str = ""

    def run(self, *arguments: str, text: str = "") -> str:
        """What it prints.

        Raises:
            subprocess.CalledProcessError: when it fails.
        """
        environment = {**os.environ, "LD_LIBRARY_PATH": self.libraries}
        command = [self.path, *arguments]
        return subprocess.run(
            command, input=text, env=environment, check=True, capture_output=True, text=True
        ).stdout


def compiler() -> str:
    """The prefix of the cross tools."""
    for name in ("g++", "gcc", "objdump"):
        if not shutil.which(PREFIX + name):
            raise MissingError(f"no {PREFIX}{name}: apt-get install g++-aarch64-linux-gnu")
    if not shutil.which("gcc"):
        raise MissingError("no gcc for qemu's plugin: apt-get install gcc")
    return PREFIX


def cross_options() -> list[str]:
    """What CMake is told to build for aarch64."""
    compilers = (f"C_COMPILER={PREFIX}gcc", f"CXX_COMPILER={PREFIX}g++")
    system = ("SYSTEM_NAME=Linux", "SYSTEM_PROCESSOR=aarch64", "BUILD_TYPE=Release")
    return [f"-DCMAKE_{each}" for each in (*system, *compilers)]


def cmake(*arguments: str) -> None:
    """Run CMake; end with what it says when it fails.

    Raises:
        MissingError: there is no CMake.
    """
    own = Path(sys.prefix) / "bin" / "cmake"
    program = str(own) if own.exists() else shutil.which("cmake")
    if program is None:
        raise MissingError("no cmake: pip install cmake")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cmake {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


def emulator() -> Program:
    """A qemu-aarch64 that takes plugins."""
    packages = ("qemu-user", "libcapstone4", "liburing2")
    return _own_or_unpacked("qemu-aarch64", "usr/bin/qemu-aarch64", packages, _takes_plugins)


def analyser() -> Program:
    """An llvm-mca that knows neoverse-n1."""
    packages = ("llvm-19", "libllvm19", "libpfm4")
    return _own_or_unpacked("llvm-mca", "usr/lib/llvm-19/bin/llvm-mca", packages, _is_new)


def _takes_plugins(program: Program) -> bool:
    return "-plugin" in program.run("-help")


def _is_new(program: Program) -> bool:
    version = re.search(r"LLVM version (\d+)", program.run("--version"))
    return version is not None and int(version[1]) >= FIRST_MCA


def _own_or_unpacked(name: str, path: str, packages: Sequence[str], fits) -> Program:
    """The machine's program if it fits, else that of the packages."""
    own = shutil.which(name)
    if own and fits(Program(own)):
        return Program(own)
    unpacked = FOLDER / "root" / path
    if not unpacked.exists():
        _unpack(packages)
    libraries = ":".join(str(FOLDER / "root" / folder) for folder in LIBRARIES)
    program = Program(str(unpacked), libraries)
    try:
        if fits(program):
            return program
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(f"{name} of {packages[0]} does not run: {error}") from error
    raise MissingError(f"{name} of {packages[0]} is not what is needed")


def _unpack(packages: Sequence[str]) -> None:
    """Download Debian packages and unpack them, which changes nothing on the machine."""
    debs = FOLDER / "debs"
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir(parents=True)
    try:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages]
        subprocess.run(download, cwd=debs, check=True, capture_output=True, text=True)
        for deb in debs.iterdir():
            subprocess.run(["dpkg-deb", "-x", str(deb), str(FOLDER / "root")], check=True)
    except FileNotFoundError as error:
        raise MissingError(f"no {error.filename}, which fetches {packages[0]}") from error
    except subprocess.CalledProcessError as error:
        words = (error.stderr or "").strip().splitlines() or ["no message"]
        raise MissingError(f"apt-get download {' '.join(packages)}: {words[0]}") from error
