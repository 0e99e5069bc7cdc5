"""MobileNets as lists of layers that TensorFlow.js runs: JSON, and all floats in one file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.compiler.graph.graph import Graph, Node
from sparsejax.compiler.nodes.conv import Conv
from sparsejax.compiler.nodes.linear import Linear
from sparsejax.compiler.nodes.mean import Mean

ACTIVATIONS = ("identity", "relu", "relu6")


def export(graph: Graph, path: Path) -> None:
    """Write `path`.json, the layers in order, and `path`.bin, their weights in float32.

    Raises:
        ValueError: for a layer that MobileNets have not.
    """
    numbers = {value: i for i, value in enumerate(graph.inputs)}
    layers, parts, begin = [], [], 0
    for node in graph.nodes:
        layer = {"inputs": [numbers[value] for value in node.inputs], **_layer(node)}
        for name in ("weights", "bias") if type(node.op) in (Conv, Linear) else ():
            array = np.asarray(getattr(node.op, name), np.float32)
            if name == "weights" and layer["op"] == "depthwise":
                array = array.swapaxes(2, 3)  # as TensorFlow has them
            layer[name] = {"begin": begin, "shape": array.shape}
            parts.append(array.ravel())
            begin += array.size
        layers.append(layer)
        numbers[node.outputs[0]] = len(numbers)
    path.with_suffix(".json").write_text(json.dumps(layers))
    np.concatenate(parts).tofile(path.with_suffix(".bin"))


def _layer(node: Node) -> dict[str, Any]:
    op = node.op
    if isinstance(op, Mean):
        return {"op": "mean"}
    activation = str(getattr(op, "activation", ""))
    if activation in ACTIVATIONS and isinstance(op, Linear):
        return {"op": "linear", "activation": activation}
    if activation in ACTIVATIONS and isinstance(op, Conv) and (op.is_depthwise or op.groups == 1):
        kind = "depthwise" if op.is_depthwise else "conv"
        return {
            "op": kind,
            "activation": activation,
            "strides": op.strides,
            "padding": op.padding,
        }
    raise ValueError(f"export needs the layers of a MobileNet, got {op}.")
