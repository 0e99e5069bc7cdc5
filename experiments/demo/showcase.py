"""What the demo shows of its trained networks: pictures with predictions, files with weights."""

import base64
import io
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import matplotlib.image
import numpy as np
from jaxtyping import Int, UInt8

import sparsejax as sj
from experiments.data.dataset import Dataset, Standardize
from experiments.data.stored import read_npz

NUM_SAMPLES = 8


def samples(
    dataset: Dataset,
    dense: Int[np.ndarray, " images"],
    sparse: Int[np.ndarray, " images"],
) -> dict[str, Any]:
    """How often both networks are right, the first test images, and the first they disagree on.

    Args:
        dataset: its first test images are those of the predictions.
        dense, sparse: classes predicted by the two networks.
    """
    labels = dataset.test_labels[: len(dense)]
    right = {"dense": dense == labels, "sparse": sparse == labels}

    def shown(index: int) -> dict[str, Any]:
        classes = {"label": labels[index], "dense": dense[index], "sparse": sparse[index]}
        names = {name: dataset.classes[number] for name, number in classes.items()}
        return {"index": int(index), **names, "png": png(dataset.test_images[index])}

    disagreed = np.flatnonzero(dense != sparse)[:NUM_SAMPLES]
    return {
        "both": int((right["dense"] & right["sparse"]).sum()),
        "dense_only": int((right["dense"] & ~right["sparse"]).sum()),
        "sparse_only": int((~right["dense"] & right["sparse"]).sum()),
        "neither": int((~right["dense"] & ~right["sparse"]).sum()),
        "first": [shown(index) for index in range(min(NUM_SAMPLES, len(labels)))],
        "disagreed": [shown(index) for index in disagreed],
    }


def png(image: UInt8[np.ndarray, "height width"]) -> str:
    """A grey image as the base64 of a PNG file."""
    file = io.BytesIO()
    matplotlib.image.imsave(file, image, format="png", cmap="gray", vmin=0, vmax=255)
    return base64.b64encode(file.getvalue()).decode()


def write_weights(folder: Path, states: dict[str, Any], plan: sj.Plan) -> dict[str, int]:
    """Write dense.npz and sparse.npz, the plan's leaves of the latter packed; their bytes."""
    zeros = {"dense": [], "sparse": [leaf.path for leaf in plan.leaves]}
    return {
        name: save_weights(folder / f"{name}.npz", state.params, state.statistics, zeros[name])
        for name, state in states.items()
    }


def write_networks(
    folder: Path, apply_fn: Any, states: dict[str, Any], dataset: Dataset, scale: Standardize
) -> None:
    """Write dense.sjx and sparse.sjx, which run anywhere, and networks.json, which says of what.

    Args:
        folder: to write into.
        apply_fn: (variables, standardised images) -> logits.
        states: the trained networks.
        dataset: whose images they take, in bytes from 0 to 255 as floats.
        scale: of its training images, which becomes part of the networks.
    """

    def logits(variables: Any, image: Any) -> Any:
        return {"logits": apply_fn(variables, (image - scale.mean) / scale.std)}

    image = jax.ShapeDtypeStruct((1, *dataset.test_images.shape[1:3], 1), np.float32)
    for name, state in states.items():
        compiled = sj.compile(logits, (state.params, state.statistics), image, tune=False)
        sj.save(compiled, folder / f"{name}.sjx")
    known = {"dataset": dataset.name, "classes": list(dataset.classes), "size": image.shape[1]}
    (folder / "networks.json").write_text(json.dumps(known))


def save_weights(path: Path, params: Any, statistics: Any, zeros: Collection[str] = ()) -> int:
    """The bytes of an uncompressed .npz file with all variables, those with zeros as CSR.

    A packed leaf becomes its nonzero values, their columns in the smallest integers that hold them,
    where each row starts, and its shape; `load_weights` reads it back.

    Args:
        path: of the file.
        params, statistics: of the network.
        zeros: paths of the params to pack.
    """
    arrays: dict[str, np.ndarray] = {}
    for leaf_path, leaf in sj.tree.leaves_with_paths(params):
        arrays |= packed_arrays(leaf_path, leaf) if leaf_path in zeros else {leaf_path: leaf}
    np.savez(path, **arrays, **dict(sj.tree.leaves_with_paths(statistics)))
    return path.stat().st_size


def packed_arrays(path: str, weights: Any) -> dict[str, np.ndarray]:
    """The parts of a leaf's nonzeros, by name."""
    packed = sj.Unstructured().pack(np.asarray(weights))
    return {
        f"{path}:values": np.asarray(packed.values),
        f"{path}:columns": packed.indices.astype(np.min_scalar_type(packed.matrix_shape[1] - 1)),
        f"{path}:row_starts": np.asarray(packed.row_starts),
        f"{path}:shape": np.asarray(packed.leaf_shape, np.int32),
    }


def load_weights(path: Path) -> dict[str, np.ndarray]:
    """The variables by path from a file of `save_weights`, dense."""
    weights = {}
    file = read_npz(path, {}, "write it again with save_weights")
    for name in file:
        leaf_path, _, part = name.partition(":")
        if part in ("", "values"):
            weights[leaf_path] = file[name] if not part else _unpack(file, leaf_path)
    return weights


def _unpack(file: Any, path: str) -> np.ndarray:
    """The dense leaf of a packed one."""
    shape = tuple(file[f"{path}:shape"].tolist())
    matrix = np.zeros((shape[-1], math.prod(shape[:-1])), np.float32)
    rows = np.repeat(np.arange(len(matrix)), np.diff(file[f"{path}:row_starts"]))
    matrix[rows, file[f"{path}:columns"]] = file[f"{path}:values"]
    return sj.arrays.from_matrix(matrix, shape)
