"""Settings are guarded, the demo goes on where it was stopped, the report opens in a browser."""

import html
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from experiments.demo import report_page
from experiments.demo.measure import TOLERANCE
from experiments.demo.settings import Demo, affordable_steps, keep_recipe, prepare
from experiments.demo.showcase import png
from experiments.pages.figures import LIGHT, latency_axes, latency_bars
from tests.experiments.test_train import start

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)

IMAGE = png(np.zeros((28, 28), np.uint8))


def started(demo):
    demo = prepare(demo)
    keep_recipe(demo)
    return demo


def test_settings_of_an_earlier_run_are_guarded(tmp_path):
    output = tmp_path / "out"
    started(Demo(output=output, steps=9))
    prepare(Demo(output=output, steps=9))
    with pytest.raises(SystemExit, match=r"other settings \(steps, seed\): pass --fresh"):
        prepare(Demo(output=output, steps=7, seed=1))
    (output / "mine").touch()
    assert started(Demo(output=output, steps=7, seed=1, fresh=True)).steps == 7
    assert json.loads((output / "checkpoint" / "recipe.json").read_text())["steps"] == 7
    assert (output / "mine").exists()


def test_a_run_goes_on_with_the_steps_that_it_chose(tmp_path):
    assert prepare(Demo(output=tmp_path)).steps is None
    keep_recipe(Demo(output=tmp_path, steps=1_234))
    assert prepare(Demo(output=tmp_path)).steps == 1_234


@pytest.mark.parametrize(("seconds", "steps"), [(0.001, 2_000), (0.1, 700), (10.0, 500)])
def test_the_machine_decides_the_steps(seconds, steps):
    assert affordable_steps(seconds) == steps


def test_a_smoke_run_does_not_stand_in_the_way_of_a_real_one():
    assert Demo(smoke=True).sized().output == Path("demo-output/smoke")
    assert Demo(smoke=True, output=Path("here")).sized().output == Path("here")
    assert Demo().sized() == Demo()


def run_demo(output):
    return start(["-m", "experiments.demo", "--smoke", "--output", str(output)])


def test_the_smoke_demo_stops_at_ctrl_c_goes_on_and_reports(tmp_path):
    with run_demo(tmp_path) as process:
        while process.poll() is None and not (tmp_path / "checkpoint" / "dense" / "5").exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130, said
    assert "goes on from there" in said
    assert not (tmp_path / "report.html").exists()

    with run_demo(tmp_path) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert re.search(
        r"^On this machine 20 steps each: about \d+ minutes \(\d+ ms a step\)", said, re.MULTILINE
    )
    assert re.search(r"^ dense \d+/20  loss \S+  accuracy ", said, re.MULTILINE)
    results = json.loads((tmp_path / "results.json").read_text())
    sparse = results["sparse"]
    assert sparse["zeros"] == round(0.9 * sparse["prunable"])
    assert [entry["step"] for entry in results["dense"]["history"]] == [5, 10, 15, 20]
    assert results["compile"]["relative_error"] <= TOLERANCE
    assert {row["name"] for row in results["latency"]["trained"]} >= {"flax as written"}
    page = (tmp_path / "report.html").read_text()
    assert "Smoke run" in page
    assert page.count("<picture>") == 3
    assert results["bytes"] == {
        name: (tmp_path / f"{name}.npz").stat().st_size for name in ("dense", "sparse")
    }


def history(end):
    return [
        {"step": 100 * i, "test_accuracy": end - 0.3 / i, "sparsity": min(0.9, 0.1 * i)}
        for i in range(1, 11)
    ]


@pytest.fixture(scope="module")
def made_up_page():
    """A page from invented numbers, with everything that a real one has."""
    names = ("flax as written", "JAX, shifted depthwise", "compile, as trained", "c, 90% <4x1>")
    trained, large = (
        [
            {"name": name, "cpu_ms": ms, "cpu_speedup": times[1] / ms, "relative_error": 1e-6}
            | {"wall_ms": 3 * ms, "wall_speedup": 97.0}  # of a busy machine
            for name, ms in zip(names, times, strict=True)
        ]
        for times in ((56.0, 9.0, 3.0, 2.0), (560.0, 90.0, 10.0, 9.0))
    )
    first = [
        {"index": i, "label": "Ankle boot", "dense": "Ankle boot", "sparse": name, "png": IMAGE}
        for i, name in enumerate(8 * ("Ankle boot", "T-shirt <top>"))
    ]
    layer = {"path": "blocks/0", "shape": [1, 1, 8, 16], "sparsity": 0.9, "kernel": "spmm"}
    layer |= {"pattern": "CSR", "multiply_adds": 1_000, "sparse_multiply_adds": 100}
    results = {
        "dataset": {"name": "Fashion-MNIST", "source": "here", "train": 60_000, "test": 10_000},
        "recipe": {
            "smoke": False,
            "width": 0.5,
            "steps": 1_000,
            "batch_size": 64,
            "penalty": 1e-3,
            "sparsity": 0.9,
            "seed": 0,
        },
        "dense": {"accuracy": 0.91, "history": history(0.91)},
        "sparse": {"accuracy": 0.90, "history": history(0.90)}
        | {"zeros": 900, "prunable": 1_000, "parameters": 1_100},
        "latency": {
            "machine": {"cpu": "a CPU", "threads": 1, "jax": "0"},
            "trained": trained,
            "224": large,
        },
        "bytes": {"dense": 3_300_000, "sparse": 660_000},
        "samples": {"both": 8_000, "dense_only": 300, "sparse_only": 200, "neither": 1_500}
        | {"first": first[:8], "disagreed": first[8:]},
        "compile": {
            "same_predictions": 9_999,
            "images": 10_000,
            "relative_error": 1e-6,
            "layers": {"layers": [layer]},
        },
    }
    random = np.random.default_rng(0)
    masks = {f"blocks/{i}/pointwise/kernel": random.random((1, 1, 16, 40)) < 0.1 for i in range(13)}
    return report_page.page(results, masks)


PROBE = """<script>addEventListener("load", () => {
  document.body.dataset.seen = JSON.stringify({
    images: [...document.images].map(i => [i.complete, i.naturalWidth, i.clientHeight]),
    fetched: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
    overflow: document.documentElement.scrollWidth - innerWidth,
  })
})</script>"""


def browse(page_file, profile, *options):
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --hide-scrollbars"
    return subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", *options, page_file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("width", [1200, 500])
def test_the_report_opens_in_a_browser(made_up_page, tmp_path, width):
    file = tmp_path / "report.html"
    file.write_text(made_up_page.replace("</body>", PROBE + "</body>"))
    dom = browse(file, tmp_path / "profile", f"--window-size={width},900", "--dump-dom")
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', dom)[1]))
    assert len(seen["images"]) == 16 + 4
    assert all(complete and w >= 28 and h >= 28 for complete, w, h in seen["images"])
    assert seen["fetched"] == []
    assert seen["overflow"] <= 0
    assert "c, 90% &lt;4x1&gt;" in dom and "T-shirt &lt;top&gt;" in dom


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
def test_the_report_can_be_seen(made_up_page, tmp_path):
    file, shot = tmp_path / "report.html", tmp_path / "shot.png"
    file.write_text(made_up_page)
    browse(file, tmp_path / "profile", "--window-size=1000,2400", f"--screenshot={shot}")
    pixels = matplotlib.image.imread(shot)
    assert pixels.shape[:2] == (2400, 1000)
    assert all(part.std() > 0.02 for part in np.array_split(pixels[..., :3], 6))


def test_the_headline_is_the_trained_network_by_cpu_time(made_up_page):
    cards = re.search(r'<ul class="cards">.*?</ul>', made_up_page, re.DOTALL)[0]
    values = re.findall(r"<strong>(.*?)</strong>", cards)
    assert values == ["3.0x", "90.0%", "90.0%", "0.66 MB"]
    assert "19x flax as written" in cards and "5.0x smaller" in cards


def test_bars_and_the_tile_agree():
    row = {"name": "compile", "cpu_ms": 4.0, "cpu_speedup": 5.7, "wall_ms": 1, "wall_speedup": 9.7}
    axes = latency_axes([row], LIGHT)
    assert [bar.get_width() for bar in axes.patches] == [4.0]
    assert [text.get_text() for text in axes.texts] == ["4.00 ms   5.7x"]


def test_the_page_needs_nothing_from_elsewhere(made_up_page):
    addresses = re.findall(r'(?:src|srcset|href)="([^"]{0,40})', made_up_page)
    assert len(addresses) == 16 + 17
    assert all(address.startswith("data:") for address in addresses)
    assert "url(" not in made_up_page.split("</style>")[0]


def test_equal_figures_are_equal_text():
    rows = [{"name": "compile", "cpu_ms": 1.0, "cpu_speedup": 2.0}]
    assert latency_bars(rows, LIGHT) == latency_bars(rows, LIGHT)
