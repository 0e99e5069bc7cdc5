"""A graph with packed layers as a function of arrays: custom calls and XLA, one after the other.

Every layer runs in the layout the model has. Turning NHWC images into planes for the whole net was
slower on an AVX2 core (MobileNet-v1 1.0/224 at 90 %: 10.4 against 7.4 ms): the entry costs 0.8 ms,
and depthwise kernels like NHWC better.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.compile import fold
from sparsejax.compile.graph_old import Graph, Layer, Node, Value
from sparsejax.compile.pack import Packer
from sparsejax.compile.select import Choice
from sparsejax.ops import depthwise_conv2d, spmm


def program(graph: Graph, choices: Mapping[Node, Choice], packer: Packer) -> Callable:
    """The function of the graph's inputs that returns the list of its outputs."""
    layers = {
        node: _layer(node.layer, choices[node], *packer(node.layer, choices[node]))
        for node in graph.nodes
        if node.layer
    }

    def run(*inputs: jax.Array) -> list[jax.Array]:
        env: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))

        def read(value: Value) -> Any:
            return env[value] if value.constant is None else value.constant

        for node in graph.nodes:
            read_inputs = map(read, node.inputs)
            outputs = [layers[node](*read_inputs)] if node.layer else _run(node, *read_inputs)
            env.update(zip(node.outputs, outputs, strict=True))
        return [jnp.asarray(read(value)) for value in graph.outputs]

    return run


def _run(node: Node, *inputs: Any) -> list[Any]:
    """An equation that is no layer."""
    if node.name == "reshape":
        return [jnp.reshape(inputs[0], node.outputs[0].shape)]
    outputs = fold.bind(node.equation.primitive, node.equation.params, *inputs)
    return outputs if node.equation.primitive.multiple_results else [outputs]


def _layer(layer: Layer, choice: Choice, weights: Any, bias: jax.Array) -> Callable:
    """The layer as a function of its input."""
    if choice.kernel == "depthwise_conv2d":
        return lambda x: depthwise_conv2d(
            x,
            weights,
            bias,
            strides=layer.strides,
            padding=layer.padding,
            activation=layer.activation,
            channels_last=layer.channels_last,
        )
    if layer.kind == "convolution":
        return lambda x: _activate(layer, _convolution(layer, weights, bias, x))
    run = _sparse if choice.kernel == "spmm" else _dense
    product = partial(run, layer, weights, bias)
    if layer.kind == "linear":
        return product if layer.channels_last else lambda x: product(x).T
    return lambda x: _at_pixels(layer, product, x)


def _sparse(layer: Layer, weights: Any, bias: jax.Array, x: jax.Array) -> jax.Array:
    last = _on_last_axis(layer)
    return spmm(weights, x, bias, activation=layer.activation, channels_last=last)


def _on_last_axis(layer: Layer) -> bool:
    """Does the product of a linear or pointwise layer run over the last axis?"""
    return layer.kind == "linear" or layer.channels_last


def _activate(layer: Layer, y: jax.Array) -> jax.Array:
    return layer.activation(y) if layer.activation else y


def _dense(layer: Layer, weights: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    matrix = weights.reshape(weights.shape[-2:])
    if _on_last_axis(layer):
        return _activate(layer, x @ matrix + bias)
    return _activate(layer, jnp.einsum("io,nip->nop", matrix, x) + bias[:, None])


def _at_pixels(layer: Layer, product: Callable, x: jax.Array) -> jax.Array:
    """A 1x1 convolution as a product: (batch, pixels, channels) or (batch, channels, pixels)."""
    rows, cols = (slice(None, None, stride) for stride in layer.strides)
    if layer.channels_last:
        x = x[:, rows, cols]
        y = product(x.reshape(x.shape[0], -1, x.shape[3]))
        return y.reshape(*x.shape[:3], -1)
    x = x[:, :, rows, cols]
    y = product(x.reshape(*x.shape[:2], -1))
    return y.reshape(x.shape[0], -1, *x.shape[2:])


def _convolution(layer: Layer, weights: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    layout = "NHWC" if layer.channels_last else "NCHW"
    y = lax.conv_general_dilated(
        x,
        weights,
        layer.strides,
        layer.padding,
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=layer.groups,
    )
    return y + (bias if layer.channels_last else bias[:, None, None])
