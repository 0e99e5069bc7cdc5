"""The C++ engine against the interpreter: random small graphs of every kind of node."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.compiler.engine.call import Programs, region_call
from sparsejax.compiler.graph.activation import IDENTITY, NAMES, RELU, RELU6, Activation
from sparsejax.compiler.graph.graph import FLOAT32, Node, Region, Value
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.nodes.affine import Affine
from sparsejax.compiler.nodes.channels import Channels
from sparsejax.compiler.nodes.concat import Concat
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.elementwise import Elementwise
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean
from sparsejax.compiler.nodes.pad import Pad
from sparsejax.compiler.nodes.pool import Pool
from sparsejax.compiler.nodes.reshape import Reshape
from sparsejax.patterns.layout import BLOCKS, COLUMNS, MASKS, ROWS, Layout

LAYOUTS = [Layout(ROWS, 1), Layout(ROWS, 2), Layout(ROWS, 4), Layout(MASKS, 4)]
LAYOUTS += [Layout(BLOCKS, 2), Layout(BLOCKS, 4), Layout(BLOCKS, 8)]
ACTIVATIONS = [IDENTITY, RELU, RELU6, Activation("clamp", -0.5, 0.7), Activation("leaky_relu", 0.1)]
ACTIVATIONS += [
    Activation(name) for name in NAMES if name not in ("identity", "clamp", "leaky_relu")
]
SPARSITIES = (0.0, 0.5, 0.9, 1.0)


def fits(sides, padding, kernel, dilation, strides):
    """The height and width that a window leaves."""
    return tuple(
        (sides[i] + sum(padding[i]) - (kernel[i] - 1) * dilation[i] - 1) // strides[i] + 1
        for i in range(2)
    )


class Random:
    """A region that grows at random; every step keeps the last value's batch."""

    def __init__(self, seed, channels_last=True):
        self.rng = np.random.default_rng(seed)
        self.last = channels_last
        self.nodes = []
        self.layouts = {}
        self.value = self.input = Value(self.shape(*self.rng.integers(1, (20, 20, 68))), FLOAT32)
        self.kept = []

    def shape(self, height, width, channels):
        sides = (height, width, channels) if self.last else (channels, height, width)
        return (2, *map(int, sides))

    def sides(self, value=None):
        _, *sides = (value or self.value).shape
        return tuple(sides if self.last else (*sides[1:], sides[0]))

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def add(self, op, sides, *inputs):
        output = Value(sides if isinstance(sides[0], str) else self.shape(*sides), FLOAT32)
        self.nodes.append(Node(op, list(inputs or [self.value]), [output]))
        self.value = output
        if hasattr(op, "weights"):
            rows = op.weights.shape[-1] // op.num_groups  # blocks lie within groups
            fitting = [y for y in LAYOUTS if y.storage == ROWS or rows % y.block == 0]
            any_of = (*LAYOUTS, Layout(COLUMNS, 1)) if op.num_groups == 1 else fitting
            self.layouts[self.nodes[-1]] = self.pick(*any_of)

    def weights(self, *shape):
        zero = self.rng.random(shape) < self.pick(*SPARSITIES)
        scale = 1 / np.sqrt(np.prod(shape[:-1]))  # values stay near 1, so that rounding does
        return np.where(zero, 0, scale * self.rng.normal(size=shape)).astype(np.float32)

    def window(self, kernel):
        """Strides, padding, dilation and output size of a window that fits."""
        height, width, _ = self.sides()
        strides, dilation = self.pick((1, 1), (2, 2), (1, 2)), self.pick((1, 1), (1, 1), (2, 1))
        padding = tuple(tuple(map(int, self.rng.integers(0, k + 1, 2))) for k in kernel)
        sizes = tuple(
            (size + sum(pads) - (k - 1) * d - 1) // s + 1
            for size, pads, k, d, s in zip(
                (height, width), padding, kernel, dilation, strides, strict=True
            )
        )
        return strides, padding, dilation, sizes

    def conv(self, depthwise=False):
        channels = self.sides()[2]
        kernel = self.pick((1, 1), (1, 1), (3, 3), (5, 5), (2, 3), (7, 7))
        strides, padding, dilation, sizes = self.window(kernel)
        if min(sizes) < 1:
            return
        outputs = channels if depthwise else int(self.rng.integers(1, 68))
        groups = channels if depthwise else 1
        group_size = self.pick(1, 2, 4, 8)
        if not depthwise and channels % group_size == 0 and self.rng.random() < 0.3:
            groups = channels // group_size
            outputs = groups * self.pick(1, 2, 3, 4, 8)
        op = partial(
            Conv,
            self.weights(*kernel, channels // groups, outputs),
            self.weights(outputs),
            "layer/kernel",
            strides,
            padding,
            dilation,
            groups,
            self.last,
        )
        same = self.shape(*sizes, outputs)
        residual = [v for v in [self.value, *self.kept] if v.shape == same][:1]
        op = op(activation=self.pick(*ACTIVATIONS))
        self.add(op, (*sizes, outputs), self.value, *residual)

    def depthwise(self):
        if self.sides()[2] > 1:
            self.conv(depthwise=True)

    def gate(self):
        *_, channels = self.sides()
        before = self.value
        self.add(Mean(self.last, keepdims=True), (1, 1, channels))
        self.pointwise(channels, self.pick(*ACTIVATIONS))
        self.add(
            Elementwise("mul", self.pick(IDENTITY, RELU)), self.sides(before), before, self.value
        )

    def pointwise(self, outputs, activation=IDENTITY):
        height, width, channels = self.sides()
        weights = self.weights(1, 1, channels, outputs)
        op = Conv(weights, self.weights(outputs), channels_last=self.last, activation=activation)
        self.add(op, (height, width, outputs))

    def binary(self):
        other = [v for v in self.kept if v.shape == self.value.shape]
        kind = self.pick("add", "sub", "mul", "max")
        op = Elementwise(kind, self.pick(*ACTIVATIONS))
        self.add(op, self.sides(), self.value, other[0] if other else self.value)

    def pool(self):
        window = self.pick((2, 2), (3, 3), (1, 3))
        strides, padding, _, _ = self.window(window)
        padding = tuple(
            tuple(min(p, k - 1) for p in pads) for pads, k in zip(padding, window, strict=True)
        )
        height, width, channels = self.sides()
        sizes = tuple(
            (size + sum(pads) - k) // s + 1
            for size, pads, k, s in zip((height, width), padding, window, strides, strict=True)
        )
        if min(sizes) < 1:
            return
        op = Pool(
            self.pick("max", "average"), window, strides, padding, self.last, self.pick(True, False)
        )
        self.add(op, (*sizes, channels))

    def affine(self):
        channels = self.sides()[2]
        axis = 3 if self.last else 1
        self.add(Affine(self.weights(channels), self.weights(channels), axis, RELU6), self.sides())

    def activate(self):
        self.add(Elementwise("identity", self.pick(*ACTIVATIONS)), self.sides())

    def pad(self):
        height, width, channels = self.sides()
        (top, bottom), (left, right) = padding = ((1, 0), (2, 1))
        self.add(Pad(padding, self.last), (height + top + bottom, width + left + right, channels))

    def concat(self):
        others = [
            v for v in self.kept if v.shape[:1] == (2,) and self.sides(v)[:2] == self.sides()[:2]
        ]
        inputs = [self.value, *others[:2]]
        channels = sum(self.sides(v)[2] for v in inputs)
        self.add(Concat(3 if self.last else 1), (*self.sides()[:2], channels), *inputs)

    def shuffle(self):
        *sides, channels = self.sides()
        index = self.rng.integers(0, channels, self.rng.integers(1, channels + 1))
        self.add(Channels(index, 3 if self.last else 1), (*sides, len(index)))

    def grow(self, steps):
        kinds = [
            "conv",
            "conv",
            "depthwise",
            "gate",
            "binary",
            "pool",
            "affine",
            "activate",
            "pad",
            "concat",
            "shuffle",
        ]
        for kind in self.rng.choice(kinds, steps):
            if max(self.sides()[:2]) < 40 and self.sides()[2] < 200:
                getattr(self, kind)()
            self.kept = [self.value, *self.kept][:4]
        return self

    def head(self):
        """A mean or a flattening, then a linear layer."""
        sides = self.sides()
        channels = sides[2]
        if self.rng.random() < 0.5:
            output = Value((2, channels), FLOAT32)
            self.nodes.append(Node(Mean(self.last), [self.value], [output]))
        else:
            channels = int(np.prod(sides))
            output = Value((2, channels), FLOAT32)
            self.nodes.append(Node(Reshape((2, channels)), [self.value], [output]))
        op = Linear(self.weights(channels, 5), self.weights(5), activation=self.pick(*ACTIVATIONS))
        logits = Value((2, 5), FLOAT32)
        self.nodes.append(Node(op, [output], [logits]))
        self.layouts[self.nodes[-1]] = self.pick(*LAYOUTS)
        return Region(self.nodes, [self.input], [logits, self.value], channels_last=self.last)


def compiled(region, layouts=None, **strips):
    return region_call(region, Programs(region, layouts or {}, **strips))


def check(region, layouts, *inputs, **strips):
    """Equal to float64 within the rounding of a few steps; returns what came out."""
    ours = jax.jit(compiled(region, layouts, **strips))(*inputs)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in inputs]
        exact = jax.jit(interpreter(region.nodes, region.inputs, region.outputs))(*wide)
    for got, expected in zip(ours, exact, strict=True):
        scale = np.abs(expected).max(initial=1e-6)
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5 * scale)
    return ours


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_equal_the_interpreter(seed):
    random = Random(seed, channels_last=seed % 3 != 0).grow(6)
    region = random.head()
    x = np.random.default_rng(seed).normal(size=random.input.shape).astype(np.float32)
    strips = (
        {"strip_pixels": 24, "whole_pixels": 30} if seed % 2 else {}
    )  # rings on small maps, too
    check(region, random.layouts, x, **strips)


@pytest.mark.parametrize("layout", [Layout(ROWS, 2), Layout(BLOCKS, 2), None])
def test_groups_of_channels_do_not_meet(layout):
    """By hand: channels (1, 2), (inf, 4) in two groups; y = sums, differences of each group."""
    weights = np.array([[1, 1, 1, 1], [1, -1, 0, -1]], np.float32)[None, None]
    x, y = Value((1, 5, 7, 4), FLOAT32), Value((1, 5, 7, 4), FLOAT32)
    node = Node(Conv(weights, np.zeros(4, np.float32), groups=2), [x], [y])
    image = np.broadcast_to(np.array([1, 2, np.inf, 4], np.float32), x.shape)
    (got,) = jax.jit(compiled(Region([node], [x], [y]), layout and {node: layout}))(image)
    np.testing.assert_array_equal(got[0, 2, 3], [3, -1, np.inf, np.inf])


@pytest.mark.parametrize(("stride", "width"), [(1, 8), (1, 6), (2, 7)])
def test_windows_of_groups_by_hand(stride, width):
    """Ones times ones count the places of a 3x3 window that lie inside, times 2 channels."""
    x = Value((1, 6, width, 6), FLOAT32)
    sides = (6 // stride, -(-width // stride))
    y = Value((1, *sides, 9), FLOAT32)
    ones, pads = np.ones((3, 3, 2, 9), np.float32), ((1, 1), (1, 1))
    conv = Conv(ones, np.zeros(9, np.float32), strides=(stride, stride), padding=pads, groups=3)
    run = jax.jit(compiled(Region([Node(conv, [x], [y])], [x], [y])))
    (got,) = run(np.ones(x.shape, np.float32))
    inside = [
        [3 - (at == 0) - (at == size - 1) for at in range(0, size, stride)] for size in (6, width)
    ]
    np.testing.assert_array_equal(got[0, ..., 5], 2 * np.outer(*inside))
