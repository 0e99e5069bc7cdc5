"""What the demo shows: speed-ups within a turn, pictures with predictions, files of weights."""

import base64
import io
from typing import NamedTuple

import matplotlib.image
import numpy as np
import pytest

import sparsejax as sj
from experiments.data.dataset import Dataset
from experiments.data.fashion import CLASSES
from experiments.demo.showcase import load_weights, png, samples, save_weights, write_weights
from experiments.pages.figures import kept_by_chance, kept_per_input
from experiments.runs.timing import summaries


def test_speedups_are_medians_of_ratios_within_a_turn():
    # (wall, CPU) of two ways in three turns; the machine is three times slower in the last two,
    # and one call of the second way is disturbed.
    baseline, ours = np.array([8e-3, 6e-3]), np.array([2e-3, 1e-3])
    slow = np.array([1, 3, 3])[:, None, None, None]
    times = slow * np.stack([baseline, ours])[None, :, None] * np.ones((3, 2, 3, 2))
    times[1, 1, 0] *= 50
    first, second = summaries(times, baseline=0)
    assert first == pytest.approx(
        {"wall_ms": 24, "cpu_ms": 18, "wall_speedup": 1, "cpu_speedup": 1}
    )
    assert second == pytest.approx({"wall_ms": 6, "cpu_ms": 3, "wall_speedup": 4, "cpu_speedup": 6})


def test_samples_by_hand():
    images = np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2)
    labels = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1], np.uint8)
    dataset = Dataset("made up", "", CLASSES, images, labels, images, labels)
    dense, sparse = labels.astype(int), labels.astype(int)
    sparse[3], dense[10] = 4, 5
    dense[11] = sparse[11] = 0
    shown = samples(dataset, dense, sparse)
    counts = {name: shown[name] for name in ("both", "dense_only", "sparse_only", "neither")}
    assert counts == {"both": 9, "dense_only": 1, "sparse_only": 1, "neither": 1}
    assert [entry["index"] for entry in shown["first"]] == list(range(8))
    assert [entry["index"] for entry in shown["disagreed"]] == [3, 10]
    assert shown["disagreed"][0] | {"png": ""} == {
        "index": 3,
        "label": "Dress",
        "dense": "Dress",
        "sparse": "Coat",
        "png": "",
    }


def test_a_picture_holds_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(png(image))))
    np.testing.assert_array_equal(np.rint(255 * pixels[..., 0]), image)


class State(NamedTuple):
    """What of a training's state is written."""

    params: dict
    statistics: dict


@pytest.mark.parametrize("outputs", [1, 5, 300])
def test_a_file_of_packed_weights_has_all_of_them(tmp_path, outputs):
    random = np.random.default_rng(0)
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)
    kernel = draw(1, 1, 260, outputs) * (random.random((1, 1, 260, outputs)) < 0.1)
    params = {"conv": {"kernel": kernel, "bias": draw(outputs)}, "head": {"kernel": draw(4, 2)}}
    state = State(params, {"norm": {"mean": draw(outputs)}})
    plan = sj.plan(params, {"conv/kernel": sj.Unstructured()}, sparsity=0.9)
    sizes = write_weights(tmp_path, {"dense": state, "sparse": state}, plan)
    everything = dict(sj.tree.leaves_with_paths((params, state.statistics)))
    for name in ("dense", "sparse"):
        assert sizes[name] == (tmp_path / f"{name}.npz").stat().st_size
        read = load_weights(tmp_path / f"{name}.npz")
        assert len(read) == len(everything)
        for path, leaf in everything.items():
            np.testing.assert_array_equal(read[path.partition("/")[2]], leaf)
    nonzeros = np.count_nonzero(kernel)
    stored = np.load(tmp_path / "sparse.npz")
    assert stored["conv/kernel:values"].size == nonzeros
    assert stored["conv/kernel:columns"].dtype == np.uint16
    if outputs == 300:
        assert sizes["sparse"] < 0.25 * sizes["dense"]


def test_a_leaf_without_nonzeros_is_written_and_read(tmp_path):
    save_weights(tmp_path / "empty.npz", {"kernel": np.zeros((3, 2), np.float32)}, {}, ["kernel"])
    np.testing.assert_array_equal(load_weights(tmp_path / "empty.npz")["kernel"], np.zeros((3, 2)))


def test_profiles_by_hand():
    mask = np.zeros((1, 1, 4, 2), bool)
    mask[..., 2, :] = True
    mask[..., 3, 1] = True
    np.testing.assert_array_equal(kept_per_input(mask), [1, 0.5, 0, 0])
    random = np.random.default_rng(0).random((200, 300)) < 0.1
    np.testing.assert_allclose(kept_per_input(random), kept_by_chance(random), atol=0.01)
