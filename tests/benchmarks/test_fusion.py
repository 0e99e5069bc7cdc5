"""The table of fusion: patterns and XLA's program by hand, and the trends of what is published."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import benchmarks
from benchmarks.fusion import NETS, by_patterns, markdown, trends
from sparsejax.compiler.passes.trace import trace

PUBLISHED = Path(benchmarks.__file__).parent / "results" / "fusion.json"
KERNEL, X = np.ones((8, 8), np.float32), np.ones((4, 8), np.float32)


def graph_of(fn):
    return trace(lambda _, x: fn(x), {}, (X,))[0]


def test_a_pattern_is_a_layer_its_constants_and_one_activation():
    graph = graph_of(lambda x: jnp.tanh(jnp.tanh((x @ KERNEL) * 2 + KERNEL[0]) + x))
    names = [[node.op.name for node in block.nodes] for block in by_patterns(graph).blocks]
    assert names == [["dot_general", "mul", "add", "tanh"], ["add"], ["tanh"]]


def test_what_two_read_ends_a_pattern():
    graph = graph_of(lambda x: (lambda y: jnp.tanh(y) * y)(x @ KERNEL))
    assert [len(block.nodes) for block in by_patterns(graph).blocks] == [1, 1, 1]


def test_the_published_table_is_of_these_networks_and_shows_the_trends():
    nets = json.loads(PUBLISHED.read_text())["nets"]
    assert list(nets) == list(NETS) and len(nets) >= 10
    found = trends(nets)
    assert found["the plan never fuses less than patterns"] and found["most in each transformer"]
    assert PUBLISHED.with_suffix(".md").read_text() == markdown(nets)


def test_trends_that_do_not_hold_are_told():
    ways = lambda patterns, plan: {"patterns": {"operators": patterns}, "plan": {"operators": plan}}
    image = {"transformer": False, "ways": ways(4, 5)}
    text = {"transformer": True, "ways": ways(6, 5)}
    told = trends({"image": image, "text": text})
    assert list(told.values()) == [False, False, True]
    assert not trends({"image": {**text, "transformer": False}, "text": text})[
        "most in each transformer"
    ]
