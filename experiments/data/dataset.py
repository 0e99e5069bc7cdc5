"""What a data set is, its standardisation, and endless batches of it through grain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Float, Int, UInt8


class Dataset(NamedTuple):
    """Images and labels; `source` says where they came from, to be printed.

    Grey images have no channel axis. `augment(images, rng)` changes the images of a batch. Where
    there are validation images, those of the test are looked at once, after the training.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train_images: UInt8[np.ndarray, "train height width"]
    train_labels: UInt8[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width"]
    test_labels: UInt8[np.ndarray, " test"]
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    validation_images: Any = None
    validation_labels: Any = None

    @property
    def on_the_way(self) -> "Dataset":
        """The data set with the validation images, if there are any, in place of the test's."""
        if self.validation_images is None:
            return self
        return self._replace(test_images=self.validation_images, test_labels=self.validation_labels)


class Standardize(NamedTuple):
    """Bytes to float32 NHWC, each channel with mean 0 and deviation 1 in the training images."""

    mean: Any
    std: Any

    def __call__(self, images: UInt8[np.ndarray, "batch ..."]) -> Float[np.ndarray, "b h w c"]:
        """The network's input."""
        scaled = (images.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)
        return scaled[..., None] if scaled.ndim == 3 else scaled


def standardize_like(images: UInt8[np.ndarray, "n ..."]) -> Standardize:
    """The standardisation of a training set; of images in files, a thousand are looked at."""
    if not isinstance(images, np.ndarray):
        images = images[:: max(1, len(images) // 1_000)]
    if images.ndim == 3:
        return Standardize(float(images.mean()), float(images.std()))
    return Standardize(images.mean((0, 1, 2)), images.std((0, 1, 2)))


def batches(
    dataset: Dataset, *, batch_size: int, seed: int
) -> grain.DatasetIterator[tuple[Float[np.ndarray, "b h w 1"], Int[np.ndarray, " b"]]]:
    """Endless shuffled training batches; every epoch has its own order, flips are random.

    `get_state()` and `set_state(state)` of the iterator save and restore the position: batch
    number i depends on the seed and i alone. Indices are shuffled and whole batches gathered,
    since one Python call per image costs 3x more than the gather (18k against 58k images/s).
    """
    standardize = standardize_like(dataset.train_images)

    def gather(indices: Int[np.ndarray, " b"], rng: np.random.Generator):
        images = dataset.train_images[indices]
        if dataset.name.startswith("Fashion") and dataset.augment is None:
            flip = rng.random(len(indices)) < 0.5
            images = np.where(flip[:, None, None], images[:, :, ::-1], images)
        if dataset.augment is not None:
            images = dataset.augment(images, rng)
        return standardize(images), dataset.train_labels[indices].astype(np.int32)

    indices = grain.MapDataset.range(len(dataset.train_labels)).seed(seed).shuffle().repeat()
    batched = indices.batch(batch_size, drop_remainder=True).random_map(gather)
    return iter(batched.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
