"""The demo's report: one HTML file that needs nothing else, for screens of any size and theme."""

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import DARK, LIGHT, NARROW, Look, curves, latency_bars, mask_maps

STYLE = Path(__file__).with_name("report_page.css")
PHONE = "(max-width: 640px)"
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
                "Inputs run downwards, outputs to the right; colour is the share of kept weights.",
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
        ("Dense accuracy", f"{dense['accuracy']:.2%}", "same budget, no pruning"),
        ("Sparse accuracy", f"{sparse['accuracy']:.2%}", f"{difference:+.2f} points"),
        (
            "Sparsity",
            f"{sparse['zeros'] / sparse['prunable']:.2%}",
            f"{sparse['zeros']:,} of {sparse['prunable']:,} weights of the 1x1 convolutions "
            f"are 0.0 ({sparse['zeros'] / sparse['parameters']:.1%} of all parameters)",
        ),
        speed_card(results["latency"]),
    ]
    items = "\n".join(
        f'<li><span class="label">{escape(label)}</span><strong>{value}</strong>'
        f"<span>{escape(note)}</span></li>"
        for label, value, note in entries
    )
    return f'<ul class="cards">\n{items}\n</ul>'


def speed_card(latency: dict[str, Any]) -> tuple[str, str, str]:
    """The best of ours at the highest sparsity in the last table, against both dense ways."""
    rows = list(latency.values())[-1]
    by_name = {row["name"]: row for row in rows}
    best = min(
        (row for row in rows if row["name"].startswith("compile")), key=lambda r: r["wall_ms"]
    )
    plain = by_name["flax as written"]["wall_ms"] / best["wall_ms"]
    note = (
        f"{best['name'].removeprefix('compile, ')}, against JAX with shifted depthwise; "
        f"{plain:.0f}x against flax as written"
    )
    return "Speed", f"{best['wall_speedup']:.1f}x", note


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
        "224": "Latency of MobileNet-v1 1.0 at 224x224",
    }[name]
    text = (
        "Batch 1, one core, all ways in turns, medians; multiples are against JAX with shifted "
        "depthwise, the faster of the two dense ways. Outputs were compared with those of the "
        "dense network with the same weights before anything was timed."
    )
    if any(row["wall_ms"] > 1.3 * row["cpu_ms"] for row in rows):
        text += " The machine was busy with other work: the CPU times are the ones to go by."
    if name == "224":
        text += " Weights are random here: they change no latency."
    head = "<tr><th>way</th><th>wall ms</th><th>CPU ms</th><th>times</th><th>error</th></tr>"
    body = "\n".join(
        f"<tr><td>{escape(row['name'])}</td><td>{row['wall_ms']:.2f}</td>"
        f"<td>{row['cpu_ms']:.2f}</td><td>{row['wall_speedup']:.2f}</td>"
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
        f"<p>{escape(machine['cpu'])}, latency on {machine['threads']} thread, "
        f"jax {escape(machine['jax'])}. Data from {escape(results['dataset']['source'])}. "
        f"Seed {recipe['seed']}.</p></footer>"
    )
