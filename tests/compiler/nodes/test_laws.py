"""What holds for every kind of node; a new kind is a row of CASES."""

import importlib
import pkgutil

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.compiler import nodes
from sparsejax.compiler.engine.call import Programs, region_call
from sparsejax.compiler.graph.activation import RELU
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.graph.images import LAST, TO_FIRST, TO_LAST
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.attention import Attention
from sparsejax.compiler.nodes.cached_attention import CachedAttention
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.concat import Concat
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.join import Join
from sparsejax.compiler.nodes.known import Known
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.moments import Moments
from sparsejax.compiler.nodes.norm import Norm
from sparsejax.compiler.nodes.op import RegionOp
from sparsejax.compiler.nodes.pad import Pad
from sparsejax.compiler.nodes.pick import pick_of
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.compiler.nodes.softmax import Softmax

IMAGE, GATE, VECTOR, LINE = (2, 5, 4, 6), (2, 1, 1, 6), (2, 6), (2, 5, 6)


def weights(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


# name -> op and the shapes of its inputs, channels last
CASES = {
    "affine": (Affine(weights(6), weights(6), LAST, RELU), IMAGE),
    "attention": (
        Attention(np.array([[0, 3], [0, 2], [1, 4]]), 3, 2, 5, "causal", 0.5, -1e30),
        *(LINE, LINE, LINE),
    ),
    "attention, biased": (
        Attention(np.array([[0, 3], [0, 2], [1, 4]]), 3, 2, 5, "add_causal", 0.5, -1e30),
        *(LINE, LINE, LINE, (2, 5, 10)),
    ),
    "attention, chosen": (
        Attention(np.array([[0, 3], [0, 2], [1, 4]]), 3, 2, 5, "choose_queries", 0.5, -2.0),
        *(LINE, LINE, LINE, (2, 5, 10)),
    ),
    "attention to others": (
        Attention(np.array([[0, 3], [0, 2], [1, 4]]), 3, 2, 5, "none", 0.5, 0.0),
        *((2, 5, 1, 6), (2, 7, 1, 6), (2, 7, 1, 6)),
    ),
    "cached attention": (
        CachedAttention(
            *(
                np.array([[0, 3], [0, 2], [1, 4]]),
                (6, 7),
                None,
                3,
                2,
                4,
                "select_queries",
                0.5,
                -2.0,
            )
        ),
        *(LINE, (2, 5, 24), (2, 5, 27), (2, 5, 4)),
    ),
    "cached attention, added to": (
        CachedAttention(
            np.array([[0, 3], [0, 2], [1, 4]]),
            *((6, 7), np.array([[3, 0], [4, 1]]), 3, 2, 4, "add_queries", 0.5, 0.0),
        ),
        *(LINE, (2, 5, 24), (2, 5, 27), LINE, (2, 5, 1), LINE, (2, 5, 1), (2, 5, 8)),
    ),
    "channels": (Channels(np.array([4, 0, 1]), LAST), IMAGE),
    "concat": (Concat(LAST), IMAGE, IMAGE),
    "conv": (Conv(weights(3, 2, 3, 4), weights(4), strides=(2, 1), groups=2), IMAGE),
    "depthwise": (Conv(weights(3, 3, 1, 6), weights(6), groups=6, activation=RELU), IMAGE),
    "elementwise": (Elementwise("sub"), IMAGE, IMAGE),
    "activation": (Elementwise("identity", RELU), IMAGE),
    "the less": (Elementwise("min"), LINE, LINE),
    "quotient": (Elementwise("div", RELU), IMAGE, IMAGE),
    "gate": (Elementwise("mul"), IMAGE, GATE),
    "slopes": (Elementwise("slope"), IMAGE, GATE),
    "slopes below": (Elementwise("slope_below"), IMAGE, IMAGE),
    "quotient by a gate": (Elementwise("div"), IMAGE, GATE),
    "gate of pixels": (Elementwise("add"), IMAGE, (2, 5, 4, 1)),
    "gate of rows": (Elementwise("mul"), LINE, (2, 5, 1)),
    "join": (Join(), IMAGE, (2, 3, 4, 6)),
    "known": (Known(weights(5, 3)), LINE),
    "known image": (Known(weights(7, 4, 3)), IMAGE),
    "linear": (Linear(weights(6, 3), weights(3)), VECTOR),
    "mean": (Mean(), IMAGE),
    "mean, kept": (Mean(keepdims=True), IMAGE),
    "moments": (Moments(weights(12), weights(12), 1e-3, 3), IMAGE),
    "norm": (Norm(weights(6), weights(6), 1e-3, LAST), IMAGE),
    "norm without mean": (Norm(weights(6), weights(6), 1e-3, LAST, centred=False), IMAGE),
    "softmax": (Softmax(LAST), IMAGE),
    "pad": (Pad(((1, 0), (2, 1))), IMAGE),
    "pad of the width": (Pad(((0, 0), (2, 1))), IMAGE),
    "pad of the height": (Pad(((1, 2), (0, 0))), IMAGE),
    "pick of the first rows": (pick_of(np.arange(48).reshape(2, 4, 6), (5, 4, 6)), IMAGE),
    "pick": (pick_of(np.arange(120)[::-1].reshape(5, 4, 6)[1:, ::2], (5, 4, 6)), IMAGE),
    "channels as pixels": (
        pick_of(np.arange(120).reshape(5, 4, 2, 3).swapaxes(1, 2).reshape(10, 4, 3), (5, 4, 6)),
        IMAGE,
    ),
    "pool": (Pool("max", (3, 2), (2, 1), ((1, 1), (0, 1))), IMAGE),
    "dilated pool": (Pool("average", (2, 2), dilation=(3, 2)), IMAGE),
    "pool of the width": (Pool("average", (1, 2), counts=False), IMAGE),
    "pool of the height": (Pool("max", (2, 1), (2, 1)), IMAGE),
    "reshape": (Reshape((2, 120)), IMAGE),
    "reshape of pixels": (Reshape((2, 2, 10, 6)), IMAGE),
}
ON_IMAGES = [name for name, (_, *shapes) in CASES.items() if not {VECTOR, LINE} & {*shapes}]


def inputs_of(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def node_of(op, inputs):
    value = lambda array: Value(array.shape, FLOAT32)
    return Node(op, list(map(value, inputs)), list(map(value, op.evaluate(*inputs))))


def kinds(of=RegionOp):
    for kind in of.__subclasses__():
        yield from kinds(kind) if kind.__abstractmethods__ else [kind]


def test_every_kind_has_a_case():
    assert {type(op) for op, *_ in CASES.values()} == set(kinds())


def test_every_kind_with_rules_is_in_the_list():
    modules = [
        importlib.import_module(f"{nodes.__name__}.{module.name}")
        for module in pkgutil.iter_modules(nodes.__path__)
    ]
    with_rules = [module.RULES for module in modules if hasattr(module, "RULES")]
    assert sorted(map(id, with_rules)) == sorted(map(id, nodes.KINDS))


@pytest.mark.parametrize("name", CASES)
def test_the_engine_computes_what_the_kind_means(name):
    op, *shapes = CASES[name]
    inputs = inputs_of(*shapes)
    node = node_of(op, inputs)
    rows = len(shapes[0]) == len(LINE)
    region = Region([node], node.inputs, node.outputs, rows)
    (actual,) = region_call(region, Programs(region, {}))(*inputs)
    (expected,) = op.evaluate(*inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_kind_knows_its_channels_and_its_mapping(name):
    op, *shapes = CASES[name]
    node = node_of(op, inputs_of(*shapes))
    assert max(map(len, shapes)) - 1 in op.channel_axes(node)
    assert isinstance(op.mapping(node), MappingType) and str(op).startswith(op.name)
    assert str(op.settled(max(map(len, shapes)) - 1, node.outputs[0].shape)) == str(op)


@pytest.mark.parametrize("to_last", [True, False])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", ON_IMAGES)
def test_a_change_of_axes_may_come_later(name, last, to_last):
    """op(turned x) is turned op'(x), whichever axes the op takes for channels."""
    op, *shapes = CASES[name]
    inputs = inputs_of(*shapes)
    if not last:  # the same op for images that have their channels first
        op = op.before_change(True)
        inputs = [x.transpose(TO_FIRST) for x in inputs]
    before = op and op.before_change(to_last)
    if before is None:
        side = "width" if last else "height"  # is axis 2, which is no channels in either order
        fixed = isinstance(op, Attention | Known | Reshape | None)
        assert fixed or (last != to_last and side not in name)
        return
    back, order = (TO_FIRST, TO_LAST) if to_last else (TO_LAST, TO_FIRST)
    (expected,) = op.evaluate(*inputs)
    (actual,) = before.evaluate(*(x.transpose(back) for x in inputs))
    actual = actual.transpose(order) if actual.ndim == 4 else actual
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
