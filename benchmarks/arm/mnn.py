"""MNN for aarch64: its library of a checkout, and the models that its converter writes."""

import json
import re
import subprocess
from pathlib import Path

from benchmarks.arm import count
from benchmarks.arm.tools import FOLDER, PREFIX, MissingError, cmake, cross_options
from benchmarks.peers.environments import ENGINES, CannotBeHadError, python_of

(ENGINE,) = (engine for engine in ENGINES if engine.name == "mnn")
WANTED = ENGINE.requirements[0].removeprefix("MNN==")  # library and converter are of one version
HINT = f"git clone --depth 1 --branch {WANTED} https://github.com/alibaba/MNN"
OFF = (
    *("BUILD_SHARED_LIBS", "SEP_BUILD", "BUILD_TOOLS", "ARM82", "KLEIDIAI", "SME2", "USE_SSE"),
    *("SUPPORT_DEPRECATED_OPV2", "SUPPORT_QUANT_EXTEND"),
)  # half precision, other CPUs' kernels, operators that the network has not
SPARSE = "--detectSparseSpeedUp"
LAYER = b"sparseBlockOC"  # an attribute of each layer that the converter made sparse


def version(checkout: Path) -> str:
    """What the checkout says it is.

    Raises:
        MissingError: it is no checkout of MNN.
    """
    header = checkout / "include" / "MNN" / "MNNDefine.h"
    if not header.exists():
        raise MissingError(f"{checkout} is no checkout of MNN: {HINT}")
    found = re.findall(r"define MNN_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header.read_text())
    return ".".join(found)


def build(checkout: Path) -> None:
    """Cross-build the library and the program that runs a model on it.

    Raises:
        MissingError: the checkout is not of the converter's version.
    """
    if version(checkout) != WANTED:
        raise MissingError(f"MNN {WANTED} is needed, got {version(checkout)}: {HINT}")
    library = FOLDER / "mnn_library"
    cmake(
        "-S", str(checkout), "-B", str(library), *cross_options(), *(f"-DMNN_{x}=OFF" for x in OFF)
    )
    cmake("--build", str(library), "--target", "MNN", "--parallel", "2")
    whole = ("-Wl,--whole-archive", str(library / "libMNN.a"), "-Wl,--no-whole-archive")
    flags = ("-std=c++17", "-O2", "-static", f"-I{checkout / 'include'}")
    source, program = str(count.HERE / "mnn.cc"), str(FOLDER / "mnn")
    count.compiled(f"{PREFIX}g++", *flags, source, *whole, "-pthread", "-o", program)


def convert(model: Path, to: Path, *flags: str) -> int:
    """Write MNN's form of an ONNX file, and return how many layers are sparse in it.

    Raises:
        MissingError: when the converter cannot be had.
    """
    try:
        tool = python_of(ENGINE).with_name("mnnconvert")
    except CannotBeHadError as reason:
        raise MissingError(str(reason)) from reason
    files = ("-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(to), "--bizCode", "MNN")
    subprocess.run([tool, *files, *flags], check=True, capture_output=True, cwd=to.parent)
    return to.read_bytes().count(LAYER)


def blocks_of(outputs: int, folder: Path) -> str:
    """The converter's flag that says of what blocks the zeros are."""
    pruner = {"type": "SIMD_OC", "simd_oc_pruner_params": {"oc_blocks": [outputs]}}
    file = folder / "blocks.json"
    file.write_text(
        json.dumps({"version": WANTED, "algo": [{"type": "PRUNE", "prune_params": pruner}]})
    )
    return f"--compressionParamsFile={file}"
