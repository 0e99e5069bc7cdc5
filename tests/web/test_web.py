"""What Python saved runs in Node and in a browser, and bad input gets a sentence."""

import base64
import io
import json
import shutil
import subprocess
import urllib.parse
import zlib
from operator import contains
from pathlib import Path

import jax
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
    len(list((ROOT / "web" / "src").glob("*.wasm"))) < 4,
    reason="the modules are not built: make web",
)
in_node = pytest.mark.skipif(NODE is None, reason="no node on PATH")


def in_browser(test):
    reason = "no chromium or google-chrome on PATH"
    return pytest.mark.browser(pytest.mark.skipif(BROWSER is None, reason=reason)(test))


def saved(file, name="rows", times=1):
    """Saves a network, its weights `times` what they were: an input, and what Python finds."""
    function, params, inputs = CALLS[name]
    params = jax.tree.map(lambda weights: times * weights, params)
    (x,) = inputs(3)
    fast = sj.compile(function, params, x, tune=False)
    sj.save(fast, file)
    return x, jax.tree.map(np.asarray, fast(x))


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


# When a thread fails -> what stands in helper.js for what it has, and what is said.
FAULTS = {
    "start": ("instance(module, memory)", "instance(module)", "got no further thread: "),
    "call": ("value = stack", "value = 16", "ran out of memory or met a fault"),
}


def failing(folder, when):
    """The package with a thread that fails, and what is said then."""
    before, after, said = FAULTS[when]
    source = shutil.copytree(ROOT / "web/src", folder / when)
    shutil.copy(ROOT / "web/package.json", folder)
    helper = (source / "helper.js").read_text()
    assert before in helper
    (source / "helper.js").write_text(helper.replace(before, after))
    return source, said


@in_browser
def test_a_browser_computes_what_jax_does_in_a_worker(tmp_path):
    x, expected = saved(tmp_path / "net", "images")
    x.tofile(tmp_path / "input")
    found, unknown, damaged = browsed("tests/web/page.html", tmp_path)
    assert found["info"]["kernels"] in ("simd", "relaxed") and found["info"]["inputs"]
    for output in found["outputs"]:
        actual = np.array(output, np.float32).reshape(expected.shape)
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE * np.abs(expected).max())
    size = (tmp_path / "net").stat().st_size
    assert found["seen"][-1] == [size, size]
    assert unknown.startswith("TypeError: run needs a Float32Array for each of")
    assert damaged.startswith("sparsejax: ")


@in_browser
def test_threads_of_a_browser_share_calls_or_items(tmp_path):
    for name, kind in (("net", "images"), ("other", "rows of attention")):
        x, expected = saved(tmp_path / name, kind)
        x.tofile(tmp_path / f"{name}-input")
    faults = [failing(tmp_path, when)[1] for when in FAULTS]
    one, *said = browsed("tests/web/threads.html", tmp_path)
    assert all(map(contains, said[:2], faults)), said[:2]
    check_threads(one, expected, True, *said[2:7])  # which share each call
    check_threads(one, expected, False, *said[7:])  # workers, which share items


def check_threads(one, other, isolated, shared, wrong, damaged, *closed):
    """Two networks that ran at a time on two threads each, and what went wrong."""
    assert (shared["threads"], shared["isolated"]) == (2, isolated)
    for i, output in enumerate(shared["outputs"]):  # of two alike items and another, or of one item
        assert output[: len(one)] == one and len(output) == (1 if i % 2 else 3) * len(one)
        assert i % 2 or output[len(one) :][: len(one)] == one
    for output in shared["others"]:
        actual = np.array(output, np.float32).reshape(other.shape)
        np.testing.assert_allclose(actual, other, atol=TOLERANCE * np.abs(other).max())
    assert "as many items as the others, got 7" in wrong and damaged.startswith("sparsejax: ")
    assert closed == ("sparsejax's worker failed: the network was closed.",) * 2


THREADS = """
const [source, file, input, ...more] = process.argv.slice(1);
const {load} = await import(source), {readFileSync} = await import("node:fs");
const x = new Float32Array(Uint8Array.from(readFileSync(input)).buffer), said = [];
const first = async (net, input) => [...Object.values(await net.run(input))[0]];
const failed = (done) => done.then(() => "", ({message}) => message);
SCRIPT
console.log(JSON.stringify(said));
"""
SHARED = """
for (const threads of [1, 3, 16]) {
  const net = await load(file, {threads}), other = await load(more[0], {threads});
  for (let i = 0; i < 6; i++) await Promise.all([net.run(x), other.run(x)]);
  const outputs = [await first(net, x), await first(other, x)];
  net.close();
  said.push([net.info.threads, ...outputs, await failed(net.run(x)), await first(other, x)]);
}
globalThis.crossOriginIsolated = false;
said.push((await load(file, {threads: 3})).info.threads);
"""
REFUSED = """
said.push(await failed(load(file, {threads: 257})));
said.push(await failed(load(readFileSync(file).subarray(0, 200), {threads: 3})));
const {Memory} = WebAssembly;
WebAssembly.Memory = function (sizes) { return new Memory({...sizes, maximum: 512}); };
said.push(await failed(load(file, {threads: 64})));
const net = await load(file, {threads: 3});
said.push(await failed(net.run(new Float32Array(24e6))), await failed(net.run(x)));
WebAssembly.Memory = function () { throw new RangeError("no"); };
said.push(await failed(load(file, {threads: 3})));
"""
FAULT = """
let net;
const often = async () => {
  net ??= await load(file, {threads: 3});
  for (let i = 0; i < 1e5; i++) await net.run(x);
};
said.push(await failed(often()), await failed(often()));
"""


def in_threads(script, *arguments, source=ROOT / "web/src"):
    """What a script says in Node, which ends by itself."""
    whole = THREADS.replace("SCRIPT", script)
    command = [NODE, "--input-type=module", "-e", whole, source / "index.js", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@in_node
@pytest.mark.parametrize(("name", "times"), [("images", 1), ("loops", 400)])
def test_threads_share_a_call_and_change_no_bit(name, times, tmp_path):
    x, _ = saved(tmp_path / "net", name)
    saved(tmp_path / "other", name, times=-1)
    np.concatenate([x] * times).tofile(tmp_path / "input")
    *said, apart = in_threads(SHARED, *(tmp_path / file for file in ("net", "input", "other")))
    assert apart == 1
    _, one, other, *_ = said[0]
    assert one != other
    for threads, found in zip((1, 3, 16), said, strict=True):
        assert found == [threads, one, other, "the network was closed", other]


@in_node
def test_what_threads_cannot_do_is_said_in_a_sentence(tmp_path):
    x, _ = saved(tmp_path / "net")
    x.tofile(tmp_path / "input")
    many, damaged, stacks, batch, good, memory = in_threads(
        REFUSED, tmp_path / "net", tmp_path / "input"
    )
    assert many == "load needs threads of 1 to 256, got 257."
    assert damaged.startswith("sparsejax: ")
    assert stacks.startswith("sparsejax got no further thread: sparsejax found no memory for")
    assert batch == "sparsejax found no memory for 96000000 bytes." and good == ""
    assert memory.startswith("sparsejax found no 2 GiB of addresses for threads to share (no)")


@in_node
@pytest.mark.parametrize("when", FAULTS)
def test_a_thread_that_fails_takes_its_network_down_with_a_sentence(when, tmp_path):
    source, said = failing(tmp_path, when)
    x, _ = saved(tmp_path / "net", "images")
    x.tofile(tmp_path / "input")
    for message in in_threads(FAULT, tmp_path / "net", tmp_path / "input", source=source):
        assert said in message


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
