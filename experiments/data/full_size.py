"""Fashion-MNIST at 32x32 with validation images, so that the test images are looked at once."""

from pathlib import Path

import numpy as np

from experiments.data.dataset import Dataset
from experiments.data.datasets import crop_and_mirror, fashion_mnist

NUM_VALIDATION = 6_000


def fashion_mnist_32(folder: Path | None) -> Dataset:
    """54,000 images to train, 6,000 to validate, 10,000 to test, of 32x32; moved and mirrored."""
    return with_validation(padded(fashion_mnist(folder)), NUM_VALIDATION)


def fashion_mnist_32_validation(folder: Path | None) -> Dataset:
    """The same with the validation images in place of the test's: for choices."""
    dataset = fashion_mnist_32(folder)
    return dataset._replace(
        name=f"{dataset.name}, validation",
        test_images=dataset.validation_images,
        test_labels=dataset.validation_labels,
        validation_images=None,
        validation_labels=None,
    )


def padded(dataset: Dataset) -> Dataset:
    """Grey images of 28x28 with two more pixels around; batches are moved by up to 4 pixels."""
    around = lambda images: np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return dataset._replace(
        name=f"{dataset.name} at 32x32",
        train_images=around(dataset.train_images),
        test_images=around(dataset.test_images),
        augment=crop_and_mirror,
    )


def with_validation(dataset: Dataset, count: int) -> Dataset:
    """The data set with `count` of its training images, always the same, for validation."""
    order = np.random.default_rng(0).permutation(len(dataset.train_labels))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return dataset._replace(
        train_images=dataset.train_images[kept],
        train_labels=dataset.train_labels[kept],
        validation_images=dataset.train_images[held],
        validation_labels=dataset.train_labels[held],
    )
