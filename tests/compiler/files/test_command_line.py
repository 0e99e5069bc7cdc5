"""python -m sparsejax: what it says of a file, what it computes, and how it refuses."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import sparsejax as sj
from sparsejax import __main__ as command_line
from tests.compiler.files.functions import CALLS
from tests.compiler.files.test_other_readers import without_end

RNG = np.random.default_rng(0)
KERNEL = (RNG.normal(size=(3, 3, 3, 64)) * (RNG.random((3, 3, 3, 64)) < 0.1)).astype(np.float32)


def apply(params, image):
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        image, params["conv"]["kernel"], (2, 2), "SAME", dimension_numbers=numbers
    )
    return {"logits": jax.nn.relu(y).mean((1, 2))}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    params = {"conv": {"kernel": jnp.asarray(KERNEL)}}
    fast = sj.compile(apply, params, jnp.zeros((1, 8, 6, 3)), tune=False)
    path = tmp_path_factory.mktemp("files") / "net.safetensors"
    sj.save(fast, path)
    return path


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["sparsejax", *map(str, arguments)])
    command_line.main()
    return capsys.readouterr().out


def test_inspect_shows_layers_and_ports(monkeypatch, capsys, file):
    said = call(monkeypatch, capsys, "inspect", file)
    assert "conv/kernel" in said and "product 3x3 3->64" in said and "gaps float32" in said
    assert "inputs: input float32[batch, 8, 6, 3]" in said
    assert "outputs: logits float32[batch, 64]" in said and f"{file.stat().st_size:,}" in said
    (layer,) = sj.load(file).report().layers
    assert layer.sparsity == 1 - np.count_nonzero(KERNEL) / KERNEL.size
    assert layer.dense_bytes == 4 * (KERNEL.size + 64)


def test_run_takes_arrays_and_pictures(monkeypatch, capsys, file, tmp_path):
    pixels = RNG.integers(0, 256, (8, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    np.save(tmp_path / "array.npy", pixels.astype(np.float32) / 255)
    for name in ("picture.png", "array.npy"):
        said = call(monkeypatch, capsys, "run", file, tmp_path / name, "--output", tmp_path)
        assert said.startswith("logits float32[1, 64]: ") and " ms" in said
        expected = sj.load(file)(pixels[None].astype(np.float32) / 255)["logits"]
        np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected)


def test_check_compares_with_plain_jax(monkeypatch, capsys, file):
    assert "is sound, and within" in call(monkeypatch, capsys, "check", file)
    monkeypatch.setattr(command_line, "TOLERANCE", -1)
    with pytest.raises(SystemExit, match="computes what differs by"):
        call(monkeypatch, capsys, "check", file)


@pytest.mark.parametrize("name", CALLS)
def test_files_of_every_kind_are_shown_and_checked(monkeypatch, capsys, name, tmp_path):
    function, params, inputs = CALLS[name]
    sj.save(sj.compile(function, params, *inputs(2), tune=False), tmp_path / "net")
    assert call(monkeypatch, capsys, "inspect", tmp_path / "net").count("float32") > 2
    assert "is sound, and within" in call(monkeypatch, capsys, "check", tmp_path / "net")
    for layer in sj.load(tmp_path / "net").report().layers:
        assert 0 <= layer.sparsity < 1 and layer.dense_bytes > 0


def test_what_is_wrong_is_one_sentence(monkeypatch, capsys, file, tmp_path):
    (tmp_path / "damaged").write_bytes(file.read_bytes()[:-1])
    np.save(tmp_path / "small.npy", np.zeros((2, 2, 3), np.float32))
    loop, said = without_end(tmp_path / "loop")
    wrong = [
        ("inspect", loop),
        ("check", tmp_path / "damaged"),
        ("inspect", tmp_path / "missing"),
        ("run", file),
        ("run", file, tmp_path / "small.npy"),
    ]
    messages = [
        said,
        "does not lie in the file",
        "No such file",
        "needs inputs input float32",
        "needs input as",
    ]
    for arguments, message in zip(wrong, messages, strict=True):
        with pytest.raises(SystemExit, match=message):
            call(monkeypatch, capsys, *arguments)
