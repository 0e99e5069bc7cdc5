"""What Python saved runs in Node and in a browser, and bad input gets a sentence."""

import base64
import io
import json
import shutil
import subprocess
import urllib.parse
import zlib
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import sparsejax as sj
from benchmarks.web.browser import BROWSER, browsed
from tests.compiler.files.functions import CALLS
from tests.compiler.files.other_readers import TOLERANCE, cases, difference

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "web" / "run.mjs"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    len(list((ROOT / "web" / "src").glob("*.wasm"))) < 2,
    reason="the modules are not built: make web",
)
in_node = pytest.mark.skipif(NODE is None, reason="no node on PATH")


def in_browser(test):
    reason = "no chromium or google-chrome on PATH"
    return pytest.mark.browser(pytest.mark.skipif(BROWSER is None, reason=reason)(test))


def saved(file, name="rows"):
    function, params, inputs = CALLS[name]
    (x,) = inputs(3)
    fast = sj.compile(function, params, x, tune=False)
    sj.save(fast, file)
    return x, np.asarray(fast(x))


def test_modules_are_small():
    for module in (ROOT / "web" / "src").glob("*.wasm"):
        code = module.read_bytes()
        assert len(code) < 400_000 and len(zlib.compress(code, 9)) < 200_000, module.name


@in_node
def test_node_computes_what_jax_does(tmp_path):
    for case in cases(tmp_path):
        assert difference([NODE, RUN], case) <= TOLERANCE


@in_node
def test_bad_input_gets_a_sentence_in_node(tmp_path):
    saved(tmp_path / "net")
    whole = (tmp_path / "net").read_bytes()
    (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
    np.zeros(25, np.float32).tofile(tmp_path / "25")
    for arguments, said in (
        (["short"], "sparsejax: "),
        (["missing"], "no such file"),
        (["net", "25"], "24 floats an item and as many items as the others, got 25"),
        (["net"], "run needs a Float32Array for each of"),
    ):
        command = [NODE, RUN, *(tmp_path / name for name in arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stderr, done.stderr


@in_browser
def test_a_browser_computes_what_jax_does_in_a_worker(tmp_path):
    x, expected = saved(tmp_path / "net", "images")
    x.tofile(tmp_path / "input")
    found, unknown, damaged, shared, wrong = browsed("tests/web/page.html", tmp_path)
    assert found["info"]["kernels"] in ("simd", "relaxed") and found["info"]["inputs"]
    for output in found["outputs"]:
        actual = np.array(output, np.float32).reshape(expected.shape)
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())
    size = (tmp_path / "net").stat().st_size
    assert found["seen"][-1] == [size, size]
    assert unknown.startswith("TypeError: run needs a Float32Array for each of")
    assert damaged.startswith("sparsejax: ")
    one, half = np.array(found["outputs"][0]), len(found["outputs"][0])
    assert shared["threads"] == 2 and len(shared["outputs"]) == 3 * half
    for item in range(2):  # of three, which two workers share
        np.testing.assert_array_equal(shared["outputs"][item * half :][:half], one)
    assert "as many items as the others, got 7" in wrong


# What is missing -> how a page would find it so, and what is said.
MISSING = {
    "SIMD": ("WebAssembly.validate = () => false;", "needs WebAssembly with SIMD (Chrome 91"),
    "memory": (
        "const {instantiate} = WebAssembly; WebAssembly.instantiate = async (...all) =>"
        "({exports: {...(await instantiate(...all)).exports, malloc: () => 0}});",
        "found no memory for",
    ),
}


@in_node
@pytest.mark.parametrize("what", MISSING)
def test_what_an_engine_lacks_is_said_in_a_sentence(what, tmp_path):
    without, said = MISSING[what]
    saved(tmp_path / "net")
    script = (
        f"{without} import({json.dumps(str(ROOT / 'web/src/index.js'))})"
        f".then(({{load}}) => load({json.dumps(str(tmp_path / 'net'))}))"
        ".catch(({message}) => console.log(message))"
    )
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True)
    assert said in done.stdout, done.stdout + done.stderr


def net_of_bright(size, channels, classes):
    """A network that names the second class, the more surely the brighter a picture is."""
    weights = np.zeros((size, size, channels, classes), np.float32)
    weights[..., 1] = 4 / size / size / channels

    def net(weights, image):
        return {"logits": image.reshape(len(image), -1) @ weights.reshape(-1, classes)}

    return sj.compile(net, weights, np.ones((1, size, size, channels), np.float32), tune=False)


def white_png(size):
    file = io.BytesIO()
    matplotlib.image.imsave(file, np.ones((size, size)), format="png", cmap="gray", vmin=0, vmax=1)
    return file.getvalue()


def shown(folder, **query):
    return browsed("tests/web/demo.html?" + urllib.parse.urlencode(query, doseq=True), folder)


@in_browser
def test_the_demo_names_garments_on_a_telephone(tmp_path):
    for name in ("dense", "sparse"):
        sj.save(net_of_bright(8, 1, 3), tmp_path / f"{name}.sjx")
    known = {"dataset": "a set", "classes": ["coat", "boot", "bag"], "size": 8}
    (tmp_path / "networks.json").write_text(json.dumps(known))
    sample = {"png": base64.b64encode(white_png(8)).decode(), "label": "boot"}
    (tmp_path / "results.json").write_text(json.dumps({"samples": {"first": [sample]}}))
    read = ["#bars li", "#facts div", "#networks button"]
    bars, facts, networks = map(
        (said := shown(tmp_path, page="garment", wait="#facts dd", read=read)).get, read
    )
    assert bars[0] == "boot100.0 %" and len(bars) == 3
    assert networks == ["90 % zeros", "dense"] and said["overflow"] <= 0
    assert any("SIMD" in fact for fact in facts)


@in_browser
def test_the_demo_names_photos_on_a_telephone(tmp_path):
    networks = {"dense": ["first"], "90 % zeros": ["first", "second"]}
    for name in networks:
        sj.save(net_of_bright(8, 3, 4), tmp_path / name[:2])
    layers = lambda names: [[name, "product 1x1", "90%", "gaps", "1,000"] for name in names]
    made = [{"name": n, "file": n[:2], "layers": layers(rows)} for n, rows in networks.items()]
    photo = {"file": "white.png", "label": "white"}
    (tmp_path / "white.png").write_bytes(white_png(9))
    known = {"size": 8, "classes": ["tench", "cat", "dog"], "photos": [photo], "networks": made}
    (tmp_path / "imagenet.json").write_text(json.dumps(known))
    read = ["#layers tr", "#names li", "#zeros button", "#photo-facts div", "#peer-facts div"]
    wait = ["#photo-facts dd", "#peer-facts dd"]
    said = shown(tmp_path, page="photo", wait=wait, read=read, then="#zeros button")
    rows, names, zeros, facts, peer = map(said.get, read)
    assert len(rows) == 3 and len(said["then"]) == 2  # the dense network is chosen by a click
    assert names[0].startswith("tench") and len(names) == 3
    assert zeros == ["dense", "90 % zeros"] and said["overflow"] <= 0
    assert any("ms a frame" in fact for fact in facts)
    assert "does not run here" in peer[0]
