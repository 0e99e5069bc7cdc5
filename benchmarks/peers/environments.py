"""The other engines, each in a virtual environment of its own under build/peers."""

import shutil
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "build" / "peers"


class Format(Enum):
    """What an engine reads: NCHW images from ONNX, or NHWC ones from StableHLO."""

    ONNX = "onnx"
    STABLEHLO = "mlir"


class Engine(NamedTuple):
    """A name of `worker.ENGINES` and what pip installs for it."""

    name: str
    requirements: tuple[str, ...]
    format: Format = Format.ONNX


# deepsparse 1.9.0 has no wheel for Python 3.11 and newer; litert-converter reads StableHLO.
ENGINES = (
    Engine("onnxruntime", ("onnxruntime==1.31.1",)),
    Engine("openvino", ("openvino==2026.4.1",)),
    Engine("deepsparse", ("deepsparse==1.8.0",)),
    Engine("mnn", ("MNN==3.6.1", "numpy")),
    Engine("litert", ("ai-edge-litert==2.3.0", "litert-converter==0.5.0"), Format.STABLEHLO),
)
# What engines print or send home by themselves.
QUIET = {"NM_DISABLE_ANALYTICS": "True", "OPENVINO_TELEMETRY": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}


class CannotBeHadError(Exception):
    """An engine, or an engine's model, is not there; the message is the reason."""


def python_of(engine: Engine) -> Path:
    """The Python of an engine's environment, which is made when it is not there.

    Raises:
        CannotBeHadError: with pip's last words.
    """
    folder = FOLDER / engine.name
    stamp, wanted = folder / "requirements.txt", "\n".join(engine.requirements)
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"setting up {engine.name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "-q", "--only-binary=:all:", *engine.requirements)
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or done.stderr.strip().splitlines() or ["no message"])[0]
        raise CannotBeHadError(f"{Path(command[0]).name} {' '.join(command[1:4])}: {reason}")
