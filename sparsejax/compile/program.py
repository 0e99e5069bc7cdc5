"""A graph with packed layers as a function of arrays: custom calls and XLA, one after the other.

Between layers an NHWC image travels as planes, (batch, channels, height, width), which is what the
kernels like best; it is turned only where an equation left to XLA wants it as the model had it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparsejax.compile import fold
from sparsejax.compile.graph import Graph, Layer, Node, Value
from sparsejax.compile.pack import Packer
from sparsejax.compile.select import Choice
from sparsejax.ops import depthwise_conv2d, spmm

TO_PLANES, FROM_PLANES = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass
class Environment:
    """The arrays known so far, as the model has them and as planes."""

    arrays: dict[Value, Any] = field(default_factory=dict)
    planes: dict[Value, Any] = field(default_factory=dict)

    def read(self, value: Value) -> Any:
        """The array as the model has it."""
        if value.constant is not None:
            return value.constant
        if value not in self.arrays:
            self.arrays[value] = lax.transpose(self.planes[value], FROM_PLANES)
        return self.arrays[value]

    def read_planes(self, value: Value, channels_last: bool) -> Any:
        """The array with channels before height and width."""
        if not channels_last:
            return self.read(value)
        if value not in self.planes:
            self.planes[value] = lax.transpose(self.arrays[value], TO_PLANES)
        return self.planes[value]

    def write_planes(self, value: Value, array: Any, channels_last: bool) -> None:
        """Note a result that has channels before height and width."""
        (self.planes if channels_last else self.arrays)[value] = array

    def only_planes(self, value: Value) -> bool:
        """Would reading the array as the model has it cost a transpose?"""
        return value in self.planes and value not in self.arrays


def program(graph: Graph, choices: Mapping[Node, Choice], packer: Packer) -> Callable:
    """The function of the graph's inputs that returns the list of its outputs."""
    weights = {node: packer(node.layer, choices[node]) for node in graph.nodes if node.layer}

    def run(*inputs: jax.Array) -> list[jax.Array]:
        env = Environment(dict(zip(graph.inputs, inputs, strict=True)))
        for node in graph.nodes:
            if node.layer is None:
                _equation(env, node)
            elif choices[node].kernel == "xla":
                _dense(env, node, node.layer, *weights[node])
            else:
                _kernel(env, node, node.layer, *weights[node])
        return [jnp.asarray(env.read(value)) for value in graph.outputs]

    return run


def _kernel(env: Environment, node: Node, layer: Layer, weights: Any, bias: jax.Array) -> None:
    """A layer as a custom call, images as planes."""
    (source,), (target,) = node.inputs, node.outputs
    if layer.kind == "linear":
        y = spmm(weights, env.read(source), bias, activation=layer.activation)
        env.arrays[target] = y if layer.channels_last else y.T
        return
    x = env.read_planes(source, layer.channels_last)
    if layer.kind == "depthwise":
        y = depthwise_conv2d(
            x,
            weights,
            bias,
            strides=layer.strides,
            padding=layer.padding,
            activation=layer.activation,
            channels_last=False,
        )
    else:
        x = x[:, :, :: layer.strides[0], :: layer.strides[1]]
        pixels = x.reshape(*x.shape[:2], -1)
        y = spmm(weights, pixels, bias, activation=layer.activation, channels_last=False)
        y = y.reshape(y.shape[0], layer.outputs, *x.shape[2:])
    env.write_planes(target, y, layer.channels_last)


def _dense(env: Environment, node: Node, layer: Layer, weights: Any, bias: jax.Array) -> None:
    """A layer left to XLA, with what was folded into it."""
    (source,), (target,) = node.inputs, node.outputs
    x = env.read(source)
    if layer.kind == "linear":
        y = x @ weights + bias
        y = y if layer.channels_last else y.T
    elif layer.kind == "pointwise" and layer.channels_last:
        y = x[:, :: layer.strides[0], :: layer.strides[1]] @ weights[0, 0] + bias
    else:
        layout = "NHWC" if layer.channels_last else "NCHW"
        y = lax.conv_general_dilated(
            x,
            weights,
            layer.strides,
            layer.padding,
            dimension_numbers=(layout, "HWIO", layout),
            feature_group_count=layer.groups,
        )
        y = y + (bias if layer.channels_last else bias[:, None, None])
    env.arrays[target] = layer.activation(y) if layer.activation else y


def _equation(env: Environment, node: Node) -> None:
    """An equation that is no layer, on planes where it does not care and its inputs are planes."""
    if _runs_on_planes(env, node):
        inputs = [_as_planes(env, value) for value in node.inputs]
        env.planes[node.outputs[0]] = fold.bind(
            node.equation.primitive, node.equation.params, *inputs
        )
        return
    inputs = [env.read(value) for value in node.inputs]
    if node.name == "reshape":
        outputs = [jnp.reshape(inputs[0], node.outputs[0].shape)]
    else:
        outputs = fold.bind(node.equation.primitive, node.equation.params, *inputs)
        if not node.equation.primitive.multiple_results:
            outputs = [outputs]
    env.arrays.update(zip(node.outputs, outputs, strict=True))


def _runs_on_planes(env: Environment, node: Node) -> bool:
    """Elementwise, and every image among its inputs is at hand as planes only?"""
    images = [value for value in node.inputs if value.constant is None]
    return (
        (node.name in fold.ELEMENTWISE or node.name == "integer_pow")
        and bool(images)
        and all(env.only_planes(value) for value in images)
        and all(len(value.shape) in (0, 4) for value in node.inputs)
    )


def _as_planes(env: Environment, value: Value) -> Any:
    if value.constant is None:
        return env.planes[value]
    return value.constant.transpose(TO_PLANES) if len(value.shape) == 4 else value.constant


def sizes(node: Node) -> tuple[int, int]:
    """Multiply-adds of a layer for these shapes: dense, and with its zeros left out."""
    assert node.layer is not None
    weights = node.layer.weights
    positions = int(np.prod(node.outputs[0].shape)) // node.layer.outputs
    return positions * weights.size, positions * int(np.count_nonzero(weights))
