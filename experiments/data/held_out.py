"""Fashion-MNIST with validation images to choose by; the test images are looked at once."""

from pathlib import Path

from experiments.data.dataset import Dataset
from experiments.data.datasets import fashion_mnist
from experiments.data.full_size import with_validation

NUM_VALIDATION = 2_000


def fashion_mnist_58k(folder: Path | None) -> Dataset:
    """58,000 images to train, 2,000 to validate, 10,000 to test, of 28x28."""
    return with_validation(fashion_mnist(folder), NUM_VALIDATION)
