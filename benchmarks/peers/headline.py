"""The chart of the README and the documentation's first page, light and dark.

python -m benchmarks.peers.headline       draws what is in benchmarks/results/peers.json
"""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers.process import ROOT
from benchmarks.peers.results import CURE, FILE, PARTS
from experiments.data.stored import read_json
from experiments.pages.figures import DARK, LIGHT, NARROW, Look, draw

CASE = {"net": "mobilenet_v1", "pattern": "unstructured", "sparsity": 0.9, "batch": 1, "threads": 1}
WORDS = {
    "ours": "sj.compile",
    "jax": "flax as written",
    "jax shifted": "JAX, shifted depthwise",
    "mnn": "MNN",
    "litert": "LiteRT",
}
PICTURES = {
    ROOT / "docs" / "headline-light.svg": LIGHT,
    ROOT / "docs" / "headline-dark.svg": DARK,
    ROOT / "docs" / "headline-narrow-light.svg": LIGHT._replace(width=NARROW),
    ROOT / "docs" / "headline-narrow-dark.svg": DARK._replace(width=NARROW),
}


def main() -> None:
    rows = read_json(FILE, PARTS, CURE)["cases"]
    row = next(row for row in rows if CASE.items() <= row.items())
    for path, look in PICTURES.items():
        path.write_text(picture(row["engines"], look))


def picture(engines: dict[str, dict[str, Any]], look: Look) -> str:
    """Milliseconds of every engine as bars on one linear axis, the fastest first."""
    times = sorted((result["ms"], name) for name, result in engines.items() if "ms" in result)
    figure = Figure((look.width, 0.34 * len(times) + 0.1), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    longest = times[-1][0]
    for place, (ms, name) in enumerate(times):
        ours = name == "ours"
        colour, weight = (look.ours, "bold") if ours else (look.plain, "normal")
        axes.barh(-place, ms, height=0.64, color=colour)
        text = {"va": "center", "fontsize": 10, "fontweight": weight}
        axes.text(
            -0.02 * longest, -place, WORDS.get(name, name), ha="right", **text, color=look.text
        )
        inside = ms > 0.8 * longest
        axes.text(
            ms + (-0.015 if inside else 0.015) * longest,
            -place,
            f"{ms:.1f} ms",
            ha="right" if inside else "left",
            color="#ffffff" if inside else look.text,
            **text,
        )
    axes.set_xlim(-0.42 * longest if not look.narrow else -0.75 * longest, longest)
    axes.set_ylim(0.5 - len(times), 0.5)
    return draw(figure)


if __name__ == "__main__":
    main()
