"""The demo's report: one HTML file that needs nothing else, for screens of any size and theme."""

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from experiments.pages.figures import DARK, LIGHT, NARROW, Look, curves, latency_bars, mask_maps

STYLE = Path(__file__).with_name("report_page.css")
PHONE = "(max-width: 640px)"
AS_TRAINED = "compile, as trained"
NIGHT = "(prefers-color-scheme: dark)"


def write(path: Path, results: dict[str, Any], masks: dict[str, np.ndarray]) -> None:
    """Write the page; `results` is the demo's results.json."""
    path.write_text(page(results, masks), encoding="utf-8")


def page(results: dict[str, Any], masks: dict[str, np.ndarray]) -> str:
    """The whole document."""
    body = "\n".join(
        (
            header(results),
            cards(results),
            samples_section(results["samples"]),
            section(
                "Accuracy and sparsity",
                "Both networks start from the same weights and see the same batches in the same "
                "number of steps. The sparse one loses weights little by little.",
                picture(
                    lambda look: curves(
                        results["dense"]["history"], results["sparse"]["history"], look
                    ),
                    "Test accuracy and sparsity by training step",
                ),
            ),
            section(
                "What is left of the 1x1 convolutions",
                "Above, a window of each layer: inputs downwards, outputs to the right, a square "
                "for every weight that is kept. Below, the share of its weights that each input "
                "of the layer keeps, the highest first; dashed is what as many zeros anywhere "
                "would give. Early layers are small and stay fuller.",
                picture(lambda look: mask_maps(masks, look), "Masks of the sparse network"),
            ),
            *(
                latency_section(name, rows)
                for name, rows in results["latency"].items()
                if name != "machine"
            ),
            section("Layer by layer", "", layer_table(results["compile"]["layers"]["layers"])),
            footer(results),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>sparsejax: {escape(results['dataset']['name'])}</title>\n"
        f"<style>\n{STYLE.read_text()}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def header(results: dict[str, Any]) -> str:
    """Title, one sentence, and a warning where the numbers mean nothing."""
    recipe, dataset = results["recipe"], results["dataset"]
    warning = (
        '<p class="warning">Smoke run: a tiny budget, to see that everything works. '
        "The accuracies mean nothing.</p>"
        if recipe["smoke"]
        else ""
    )
    return (
        '<header><p class="name">sparsejax</p>\n<h1>Train sparse, run sparse</h1>\n'
        f"<p>MobileNet-v1 of width {recipe['width']} on {escape(dataset['name'])}: "
        f"{dataset['train']:,} images to train, {dataset['test']:,} to test, "
        f"{recipe['steps']:,} steps of {recipe['batch_size']} images.</p>\n{warning}</header>"
    )


def cards(results: dict[str, Any]) -> str:
    """The four numbers to remember."""
    dense, sparse = results["dense"], results["sparse"]
    difference = 100 * (sparse["accuracy"] - dense["accuracy"])
    entries = [
        speed_card(results["latency"]["trained"]),
        (
            "Test accuracy",
            f"{sparse['accuracy']:.1%}",
            f"{difference:+.1f} points: dense has {dense['accuracy']:.1%} after as many steps",
        ),
        (
            "Sparsity",
            f"{sparse['zeros'] / sparse['prunable']:.1%}",
            f"of the 1x1 convolutions' weights are 0.0: {sparse['zeros']:,} of "
            f"{sparse['prunable']:,} ({sparse['zeros'] / sparse['parameters']:.1%} of all)",
        ),
        size_card(results["bytes"]),
    ]
    items = "\n".join(
        f'<li><span class="label">{escape(label)}</span><strong>{value}</strong>'
        f"<span>{escape(note)}</span></li>"
        for label, value, note in entries
    )
    return f'<ul class="cards">\n{items}\n</ul>'


def speed_card(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    """The trained sparse network against both dense ways, by CPU time."""
    by_name = {row["name"]: row for row in rows}
    ours, plain = by_name[AS_TRAINED]["cpu_speedup"], by_name["flax as written"]["cpu_speedup"]
    note = (
        "as fast as dense in JAX with shifted depthwise convolutions, by CPU time; "
        f"{ours / plain:.0f}x flax as written"
    )
    return "Speed", f"{ours:.1f}x", note


def size_card(sizes: dict[str, int]) -> tuple[str, str, str]:
    """The two files with weights."""
    dense, sparse = sizes["dense"], sizes["sparse"]
    note = (
        f"{dense / sparse:.1f}x smaller than dense, {dense / 1e6:.2f} MB: everything in "
        "float32, the places of nonzeros counted"
    )
    return "Size on disk", f"{sparse / 1e6:.2f} MB", note


def samples_section(samples: dict[str, Any]) -> str:
    """Test pictures with what both networks say of them."""
    total = sum(samples[name] for name in ("both", "dense_only", "sparse_only", "neither"))
    text = (
        f"Of {total:,} test images both networks get {samples['both']:,} right and "
        f"{samples['neither']:,} wrong; {samples['dense_only']:,} only the dense one has right, "
        f"{samples['sparse_only']:,} only the sparse one. The sparse answers are those of the "
        "compiled network."
    )
    groups = "\n".join(
        f'<h3>{heading}</h3>\n<ul class="samples">{"".join(map(sample, samples[name]))}</ul>'
        for name, heading in (
            ("first", "The first test images"),
            ("disagreed", "The first on which they disagree"),
        )
        if samples[name]
    )
    return section("What they see", text, groups)


def sample(entry: dict[str, Any]) -> str:
    """One picture, its class, and both answers, right or wrong."""

    def answer(name: str) -> str:
        if entry[name] == entry["label"]:
            return f'<span class="right">\u2713 {name}</span>'
        return f'<span class="wrong">\u2717 {name}: {escape(entry[name])}</span>'

    return (
        f'<li><img src="data:image/png;base64,{entry["png"]}" width="28" height="28" '
        f'alt="Test image {entry["index"]}"><b>{escape(entry["label"])}</b>'
        f"{answer('dense')}{answer('sparse')}</li>"
    )


def section(heading: str, text: str, content: str) -> str:
    paragraph = f"<p>{escape(text)}</p>\n" if text else ""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{paragraph}{content}\n</section>"


def picture(render: Callable[[Look], str], alt: str) -> str:
    """An inline picture in four versions: light and dark, wide and narrow."""

    def uri(look: Look) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(render(look).encode()).decode()

    narrow_light, narrow_dark = LIGHT._replace(width=NARROW), DARK._replace(width=NARROW)
    return (
        "<picture>\n"
        f'<source media="{NIGHT} and {PHONE}" srcset="{uri(narrow_dark)}">\n'
        f'<source media="{NIGHT}" srcset="{uri(DARK)}">\n'
        f'<source media="{PHONE}" srcset="{uri(narrow_light)}">\n'
        f'<img src="{uri(LIGHT)}" alt="{escape(alt)}">\n</picture>'
    )


def latency_section(name: str, rows: list[dict[str, Any]]) -> str:
    """Bars and the table of one network."""
    heading = {
        "trained": "Latency of the trained network",
        "224": "The same at the size of ImageNet: MobileNet-v1 1.0 at 224x224",
    }[name]
    weights = {
        "trained": f'"{AS_TRAINED}" is the sparse network above. The others show what pattern and '
        "sparsity do to the time: the dense network, and the same pruned at once.",
        "224": "Weights are random here, which changes no latency.",
    }[name]
    text = (
        "CPU time of one image on one core, all ways in turns. Multiples are against JAX with "
        "shifted depthwise, the faster of the two dense ways, each the median of the ratios within "
        f"a turn. Outputs were compared before anything was timed. {weights}"
    )
    head = "<tr><th>way</th><th>CPU ms</th><th>times</th><th>wall ms</th><th>error</th></tr>"
    body = "\n".join(
        f"<tr><td>{escape(row['name'])}</td><td>{row['cpu_ms']:.2f}</td>"
        f"<td>{row['cpu_speedup']:.2f}</td><td>{row['wall_ms']:.2f}</td>"
        f"<td>{row['relative_error']:.0e}</td></tr>"
        for row in rows
    )
    table = (
        f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'
    )
    bars = picture(lambda look: latency_bars(rows, look), heading)
    return section(heading, text, f"{bars}\n{table}")


def layer_table(layers: list[dict[str, Any]]) -> str:
    """What compile chose for each layer."""
    head = "".join(
        f"<th>{name}</th>" for name in ("layer", "weights", "zeros", "kernel", "multiply-adds")
    )
    body = "\n".join(
        f"<tr><td>{escape(layer['path'])}</td><td>{'x'.join(map(str, layer['shape']))}</td>"
        f"<td>{layer['sparsity']:.1%}</td><td>{escape(layer['kernel'])}, "
        f"{escape(layer['pattern'])}</td>"
        f"<td>{layer['sparse_multiply_adds']:,} of {layer['multiply_adds']:,}</td></tr>"
        for layer in layers
    )
    return (
        f'<details><summary>{len(layers)} layers and their kernels</summary><div class="scroll">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div></details>"
    )


def footer(results: dict[str, Any]) -> str:
    """How it was made: settings, machine, check of the compiled network."""
    recipe, check, machine = results["recipe"], results["compile"], results["latency"]["machine"]
    return (
        "<footer>"
        f"<p>Sparse training: AdamW, R2 penalty (largest |w|, weight {recipe['penalty']}), gradual "
        f"magnitude pruning to {recipe['sparsity']:.0%} of the 1x1 convolutions, divided by ERK; "
        "stem, depthwise convolutions and head stay dense.</p>\n"
        f"<p>The compiled network gives the same class as the dense evaluation of its weights for "
        f"{check['same_predictions']:,} of {check['images']:,} test images; its logits differ by "
        f"{check['relative_error']:.0e} of the largest.</p>\n"
        "<p>Size on disk is that of dense.npz and sparse.npz beside this page, uncompressed. In "
        "sparse.npz the 1x1 convolutions are CSR: values, columns in two bytes or one, and row "
        "starts; everything else is as in dense.npz.</p>\n"
        f"<p>{escape(machine['cpu'])}, latency on {machine['threads']} thread, "
        f"jax {escape(machine['jax'])}. Data from {escape(results['dataset']['source'])}. "
        f"Seed {recipe['seed']}.</p></footer>"
    )
