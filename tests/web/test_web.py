"""What Python saved runs in Node and in a browser, and bad input gets a sentence."""

import base64
import http.server
import io
import json
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

import matplotlib.image
import numpy as np
import pytest

import sparsejax as sj
from tests.compiler.files.functions import CALLS
from tests.compiler.files.other_readers import TOLERANCE, cases, difference

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "web" / "run.mjs"
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update"""
pytestmark = pytest.mark.skipif(
    len(list((ROOT / "web" / "src").glob("*.wasm"))) < 2,
    reason="the modules are not built: make web",
)
in_node = pytest.mark.skipif(NODE is None, reason="no node on PATH")


def in_browser(test):
    reason = "no chromium or google-chrome on PATH"
    return pytest.mark.browser(pytest.mark.skipif(CHROMIUM is None, reason=reason)(test))


def saved(file, name="rows"):
    function, params, inputs = CALLS[name]
    (x,) = inputs(3)
    fast = sj.compile(function, params, x, tune=False)
    sj.save(fast, file)
    return x, np.asarray(fast(x))


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


class Server(http.server.ThreadingHTTPServer):
    """Serves this checkout, the test's files, and waits for what the page says."""

    def __init__(self, files):
        super().__init__(("localhost", 0), partial(Handler, directory=ROOT))
        self.files, self.said, self.heard = files, None, threading.Event()


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".html": "text/html",
    }

    def translate_path(self, path):
        if path.startswith("/files/"):
            return str(self.server.files / path.removeprefix("/files/"))
        return super().translate_path(path)

    def do_POST(self):
        self.server.said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.heard.set()

    def log_message(self, *arguments):
        pass


def browsed(page, files):
    """What a page of this checkout says when a browser shows it."""
    with Server(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}/tests/web/{page}"
        command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={files / 'profile'}", address]
        browser = subprocess.Popen(command, stdout=-3, stderr=subprocess.DEVNULL)
        try:
            assert server.heard.wait(60), "the page said nothing"
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    return server.said


@in_browser
def test_a_browser_computes_what_jax_does_in_a_worker(tmp_path):
    x, expected = saved(tmp_path / "net", "images")
    x.tofile(tmp_path / "input")
    found, unknown, damaged = browsed("page.html", tmp_path)
    assert found["info"]["kernels"] in ("simd", "relaxed") and found["info"]["inputs"]
    for output in found["outputs"]:
        actual = np.array(output, np.float32).reshape(expected.shape)
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())
    size = (tmp_path / "net").stat().st_size
    assert found["seen"][-1] == [size, size]
    assert unknown.startswith("TypeError: run needs a Float32Array for each of")
    assert damaged.startswith("sparsejax: ")


@in_browser
def test_the_demo_names_what_it_sees_on_a_telephone(tmp_path):
    weights = np.zeros((8, 8, 1, 3), np.float32)
    weights[..., 1] = 0.01

    def net(weights, image):
        flat = image.reshape(len(image), 64)
        return {"logits": flat @ weights.reshape(64, 3)}

    for name in ("dense", "sparse"):
        fast = sj.compile(net, weights, np.ones((1, 8, 8, 1), np.float32), tune=False)
        sj.save(fast, tmp_path / f"{name}.sjx")
    known = {"dataset": "a set", "classes": ["coat", "boot", "bag"], "size": 8}
    (tmp_path / "networks.json").write_text(json.dumps(known))
    white = io.BytesIO()
    matplotlib.image.imsave(white, np.ones((8, 8)), format="png", cmap="gray", vmin=0, vmax=1)
    sample = {"png": base64.b64encode(white.getvalue()).decode(), "label": "boot"}
    (tmp_path / "results.json").write_text(json.dumps({"samples": {"first": [sample]}}))
    said = browsed("demo.html", tmp_path)
    assert said["bars"][0] == "boot100.0 %" and len(said["bars"]) == 3
    assert said["networks"] == ["90 % zeros", "dense"] and said["overflow"] <= 0
    assert any("SIMD" in fact for fact in said["facts"])
