"""Sequences of a smart watch's sensors, as windows: a data set for recurrent networks."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from experiments.data.dataset import Dataset
from experiments.data.packages import Package, fetch

PACKAGE = Package(
    "seglearn",
    "1.2.5",
    "seglearn-1.2.5-py3-none-any.whl",
    "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
)
FILE = "seglearn/data/watch_dataset.npy"
EXERCISES = (
    *("pendulum", "abduction", "forward elevation", "internal rotation"),
    *("external rotation", "trapezius extension", "upright row"),
)
TEST_SUBJECTS = (8, 9, 10)
WINDOW, STEP = 100, 50  # samples


def watch(folder: Path | None) -> Dataset:
    """Seven shoulder exercises of ten people, (windows, 100 samples, 6 channels) in float32.

    Three accelerations and three angular velocities of a watch in 140 recordings, cut into windows
    that overlap by half; each channel has mean 0 and deviation 1 over the training windows. The
    test windows are those of three people of whom no training window comes.

    Reference: Burns et al., "Shoulder Physiotherapy Exercise Recognition: Machine Learning the
    Inertial Signals from a Smartwatch", 2018, arXiv 1802.01489; data in the package seglearn.
    """
    with zipfile.ZipFile(fetch(PACKAGE, folder)) as package:
        recordings = _unpickled(package.read(FILE))
    return split(recordings["X"], recordings["y"], recordings["subject"])


def split(
    recordings: list[Float[np.ndarray, "time channels"]],
    labels: Int[np.ndarray, " recordings"],
    subjects: Int[np.ndarray, " recordings"],
) -> Dataset:
    """The data set of these recordings."""
    parts = [_windows(recording) for recording in recordings]
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    windows = np.concatenate(parts)
    test = np.isin(subjects[owners], TEST_SUBJECTS)
    mean, std = windows[~test].mean((0, 1)), windows[~test].std((0, 1))
    windows = ((windows - mean) / std).astype(np.float32)
    of_window = labels[owners].astype(np.uint8)
    return Dataset(
        "seglearn watch", f"package {PACKAGE.name} {PACKAGE.version}", EXERCISES,
        windows[~test], of_window[~test], windows[test], of_window[test],
    )  # fmt: skip


def _windows(recording: Float[np.ndarray, "time channels"]) -> Float[np.ndarray, "n window c"]:
    starts = range(0, len(recording) - WINDOW + 1, STEP)
    return np.stack([recording[start : start + WINDOW] for start in starts])


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of NumPy arrays and refuses everything else."""

    ALLOWED = ("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of this name; NumPy 1 called its core by another."""
        module = module.replace("numpy.core.", "numpy._core.")
        if f"{module}.{name}" not in (*self.ALLOWED, "_codecs.encode"):
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an array")
        return super().find_class(module, name)


def _unpickled(content: bytes) -> dict[str, Any]:
    """The dict in an .npy file of one object."""
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return _ArraysOnly(file).load().item()
