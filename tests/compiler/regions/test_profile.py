"""Blocks that run one by one: the whole's numbers, each kind compiled and measured once."""

import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.fusion import fuse
from sparsejax.compiler.regions.profile import Profile, run_blocks

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.normal(size=(8, 8)).astype(np.float32) for _ in range(3)]
X = RNG.normal(size=(2, 4, 8)).astype(np.float32)


def layers(weights, x):
    for kernel in weights:
        x = jnp.tanh((x @ kernel).reshape(4, 2, 8).transpose(1, 0, 2))
    return x


def graph_of(fn):
    return trace(fn, WEIGHTS, (X,))[0]


def test_blocks_compute_what_the_whole_does():
    graph = graph_of(layers)
    blocks = [block.nodes for block in fuse(graph).blocks]
    (y,) = run_blocks(graph, blocks, X)()
    np.testing.assert_allclose(y, jax.jit(layers)(WEIGHTS, X), rtol=1e-5)


def test_equal_layers_are_compiled_once_though_their_weights_differ():
    graph = graph_of(layers)
    profile = Profile(graph)
    dots = [[node] for node in graph.nodes if node.op.name == "dot_general"]
    assert len(dots) == 3
    assert len({id(profile.block(nodes).run) for nodes in dots}) == 1
    others = [profile.block([node]).run for node in graph.nodes[1:4]]
    assert len({id(run) for run in (*others, profile.block(dots[0]).run)}) == 4


def test_a_block_hands_on_what_others_read_or_is_returned():
    graph = graph_of(lambda w, x: (jnp.sin(x), jnp.cos(jnp.sin(x)) @ w[0]))
    graph = trace(lambda w, x: (lambda y: (y, jnp.cos(y) @ w[0]))(jnp.sin(x)), WEIGHTS, (X,))[0]
    sin, cos, dot = graph.nodes
    profile = Profile(graph)
    assert profile.block([cos, sin]).outputs == [sin.outputs[0], cos.outputs[0]]
    assert profile.block([sin, cos, dot]).outputs == [sin.outputs[0], dot.outputs[0]]


def test_fusing_pays_where_the_whole_is_faster_than_its_parts():
    graph = graph_of(layers)
    dot, reshape, *_ = graph.nodes
    profile = Profile(graph)
    for whole, pays in ((2.9, True), (3.1, False)):
        seconds = {1: 1.5, 2: whole}
        profile.seconds = lambda nodes, seconds=seconds: seconds[len(nodes)]
        assert profile([dot, reshape]) is pays


def test_the_report_measures_when_asked():
    fast = sj.compile(lambda w, x: (x @ w[0]).reshape(2, 32) + 1, WEIGHTS, X, tune=False)
    measured = fast.report(fusion="measured").fusion
    assert measured.num_after <= fast.report(fusion=True).fusion.num_after
