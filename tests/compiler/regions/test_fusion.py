"""DNNFusion's plan: the paper's tables, blocks worked by hand, no block waiting for itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.models.mobilenet_v2 import MobileNetV2Linen
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.fusion import fuse, fused
from tests.compiler.encoders import EncoderLinen

X = jnp.ones((1, 4, 4, 8))
P = {"one": jnp.ones((1, 1, 8, 8)), "scale": jnp.arange(1.0, 9.0)}
# Table 3: a row for the first node, a column for the second; capitals must be measured, - breaks.
ORDER = ["one-to-one", "one-to-many", "many-to-many", "reorganize", "shuffle"]
TABLE = {
    "one-to-one": "one many all move mix",
    "one-to-many": "many MANY - MANY MANY",
    "many-to-many": "all ALL - ALL ALL",
    "reorganize": "move MANY ALL move move",
    "shuffle": "mix MANY ALL move mix",
}
SHORT = dict(zip(["one", "many", "all", "move", "mix"], ORDER, strict=True))


def conv(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def traced(fn, *inputs, params=P):
    return trace(fn, params, inputs)[0]


def planned(fn, *inputs, **options):
    """The names of the nodes of each block."""
    plan = fuse(traced(fn, *inputs or (X,)), **options)
    return [[str(node.op).split()[0] for node in block.nodes] for block in plan.blocks]


def last_mapping(graph):
    node = graph.nodes[-1]
    return node.op.mapping(node)


def ones(shapes):
    return jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)


@pytest.mark.parametrize("first", ORDER)
def test_pairs_fuse_as_in_the_papers_table(first):
    for second, cell in zip(ORDER, TABLE[first].split(), strict=True):
        expected = None if cell == "-" else (MappingType(SHORT[cell.lower()]), cell.isupper())
        assert fused(MappingType(first), MappingType(second)) == expected


def test_nothing_fuses_with_what_is_opaque():
    for mapping in MappingType:
        assert fused(mapping, MappingType.OPAQUE) is fused(MappingType.OPAQUE, mapping) is None


MAPPINGS = {
    "one-to-one": [
        lambda x: x + P["scale"],  # a broadcast of what is known
        lambda x: jnp.exp(x),
        lambda x: x * x,
        lambda x: jnp.concatenate([x, x]),
        lambda x: x[:, 1:],
        lambda x: x + 1.0,
    ],
    "one-to-many": [
        lambda x: jnp.broadcast_to(x[..., None], (*x.shape, 3)),
        lambda x: x[:, x[0, 0, 0, :2].astype(int)],
    ],
    "many-to-many": [lambda x: conv(x, P["one"]), lambda x: x.sum(1), lambda x: jnp.cumsum(x, 1)],
    "reorganize": [lambda x: x.reshape(8, 16)],
    "shuffle": [lambda x: x.transpose(0, 3, 1, 2), lambda x: x[::-1]],
    "opaque": [lambda x: lax.while_loop(lambda c: c.sum() > 99, lambda c: c / 2, x)],
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_equations_have_the_mapping_of_the_papers_table(name):
    for fn in MAPPINGS[name]:
        graph = traced(lambda p, x, fn=fn: fn(x), X)
        assert MappingType(name) in (node.op.mapping(node) for node in graph.nodes)


def test_a_gate_maps_one_to_many():
    graph = traced(lambda p, x: x * x[:, :1, :1], X)
    assert last_mapping(graph) is MappingType.ONE_TO_MANY
    assert last_mapping(rewrite(graph)) is MappingType.ONE_TO_MANY


def test_recognised_kinds_have_a_mapping():
    def fn(p, x):
        y = jax.nn.relu(conv(x, p["one"]) * p["scale"])
        return y.mean((1, 2)) @ p["one"][0, 0]

    nodes = rewrite(traced(fn, X)).nodes
    assert [node.op.mapping(node).value for node in nodes] == ["many-to-many"] * 3
    reversed_channels = Node(Channels(np.arange(8)[::-1], 3), nodes[0].inputs, nodes[0].outputs)
    assert reversed_channels.op.mapping(reversed_channels).value == "shuffle"


def test_a_convolution_takes_in_its_norm_and_activation():
    fn = lambda p, x: conv(jnp.tanh(conv(x, p["one"]) * p["scale"] + p["scale"]), p["one"])
    # All outputs are of one size: mul seeds, takes in add and tanh and the second convolution
    # behind them; the block is many-to-many, so that the first convolution must stay out.
    assert planned(fn) == [
        ["conv_general_dilated"],
        ["mul", "add", "tanh", "conv_general_dilated"],
    ]


def test_two_reductions_are_never_in_one_block():
    fn = lambda p, x: jnp.exp(x - x.max(-1, keepdims=True)).sum(-1)
    for block in fuse(traced(fn, X)).blocks:
        assert sum(node.op.mapping(node) is MappingType.MANY_TO_MANY for node in block.nodes) <= 1


def test_the_smallest_output_seeds_first():
    # exp (4 elements) takes in what is before it, nothing beside that; had tanh (128) seeded, it
    # would have taken the convolution behind it.
    fn = lambda p, x: (lambda y: (jnp.exp(y[0, 0, 0, :4]), conv(y, p["one"])))(jnp.tanh(x))
    small = ["tanh", "slice", "Reshape", "exp"]
    assert planned(fn) == [small, ["conv_general_dilated"]]


def test_what_must_be_measured_is_fused_only_if_that_pays():
    fn = lambda p, x: x.sum((1, 2)).reshape(2, 4) + 1.0
    assert planned(fn) == [["reduce_sum"], ["Reshape", "add"]]
    seen = []
    graph = traced(fn, X)
    together = fuse(graph, profitable=lambda nodes: seen.append(len(nodes)) or True)
    assert together.num_after == 1 and seen == [3]


def test_a_block_is_no_larger_than_allowed():
    fn = lambda p, x: jnp.sin(jnp.cos(jnp.sin(jnp.cos(x))))
    assert planned(fn) == [["cos", "sin", "cos", "sin"]]
    assert [len(block) for block in planned(fn, max_nodes=3)] == [3, 1]


def opaque(x):
    return lax.while_loop(lambda c: c.sum() > 99, lambda c: c / 2, x)


def test_a_skip_is_not_fused_around_its_branch():
    """relu and add are one-to-one, but the loop must run between them."""
    blocks = planned(lambda p, x: (lambda y: y + opaque(y))(jnp.tanh(x)))
    assert blocks == [["tanh"], ["while"], ["add"]]


def test_blocks_never_wait_for_each_other():
    crossing = lambda p, x: (jnp.tanh(x) + opaque(jnp.exp(x))) * (jnp.exp(x) + opaque(jnp.tanh(x)))
    ids = jnp.zeros((1, 6), int)
    encoder = EncoderLinen()
    params = ones(jax.eval_shape(encoder.init, jax.random.key(0), ids))
    for graph in (traced(crossing, X), traced(encoder.apply, ids, params=params)):
        done = set(graph.inputs)
        blocks = fuse(graph, profitable=lambda nodes: True).blocks
        assert sorted(map(id, graph.nodes)) == sorted(id(n) for b in blocks for n in b.nodes)
        for block in blocks:
            inner = {v for node in block.nodes for v in node.outputs}
            read = {v for node in block.nodes for v in node.inputs if v.constant is None}
            assert read - inner <= done
            done |= inner


def test_bytes_are_those_that_nodes_and_blocks_hand_on():
    plan = fuse(traced(lambda p, x: jnp.sort(jnp.cos(jnp.sin(x))) + 1.0, X))
    # sin, cos and sort hand 128 floats on; sin takes in cos, sort and add.
    assert (plan.num_before, plan.num_after) == (4, 1)
    assert (plan.bytes_before, plan.bytes_after) == (3 * 512, 0)


def test_a_plan_prints_a_table():
    text = str(fuse(traced(lambda p, x: opaque(jnp.tanh(x)), X)))
    assert "one-to-one" in text and "while" in text
    assert "2 nodes in 2 blocks" in text and "0.00 MB after" in " ".join(text.split())


def test_mobilenet_fuses_to_about_its_convolutions():
    model = MobileNetV2Linen(width=0.125, num_classes=4)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    graph = traced(model.apply, x, params=ones(shapes))
    plan = fuse(graph)
    convolutions = sum(node.op.mapping(node) is MappingType.MANY_TO_MANY for node in graph.nodes)
    assert convolutions == 54 <= plan.num_after <= 60 < 4 * plan.num_after < plan.num_before + 54
    assert plan.bytes_after < plan.bytes_before / 3
