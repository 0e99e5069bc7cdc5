"""What an ONNX file is made of: nodes, constants, names of values, activations."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.compiler.graph.activation import Activation
from sparsejax.compiler.graph.graph import Value

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError as error:
    raise ImportError(
        "benchmarks.peers needs the package onnx, which is not here; pip install -e '.[peers]'."
    ) from error

OPSET, IR_VERSION = 13, 8  # what the oldest of the engines reads
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Writer:
    """The nodes and constants of a file in the making, and what each value is called there."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.plain: dict[Value, str] = {}  # values as the graph has them
        self.image: dict[Value, str] = {}  # NHWC values as NCHW

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The name of a new node's output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """The name of a new constant."""
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(array, dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def read(self, value: Value, *, image: bool) -> str:
        """A value's name in a layout; transposed first where it has only the other."""
        wanted, other = (self.image, self.plain) if image else (self.plain, self.image)
        if value not in wanted and value.constant is not None:
            array = np.asarray(value.constant, np.float32)
            wanted[value] = self.constant(array.transpose(TO_CHANNELS_FIRST) if image else array)
        elif value not in wanted:
            order = TO_CHANNELS_FIRST if image else TO_CHANNELS_LAST
            wanted[value] = self.add("Transpose", other[value], perm=order)
        return wanted[value]

    def write(self, value: Value, name: str, *, image: bool) -> None:
        """Say that a value is what a node put out."""
        (self.image if image else self.plain)[value] = name

    def save(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        path: Path,
    ) -> None:
        """Write the file."""
        made = helper.make_graph(self.nodes, "net", inputs, outputs, self.constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        onnx.save(model, path)


def info(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
    """An input or output of floats."""
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def activate(writer: Writer, activation: Activation, x: str) -> str:
    """The name of activation(x)."""
    if activation.name == "clamp":
        return _clamp(writer, activation, x)
    return ACTIVATIONS[activation.name](writer, activation, x)


def _clamp(writer: Writer, activation: Activation, x: str) -> str:
    low, high = activation.low, activation.high
    if (low, high) == (0, np.inf):
        return writer.add("Relu", x)
    bounds = [writer.constant(v) if np.isfinite(v) else "" for v in (low, high)]
    return writer.add("Clip", x, *bounds)


def _gelu(writer: Writer, x: str, inner: str) -> str:
    """x (1 + inner) / 2."""
    half = writer.add("Mul", x, writer.constant(0.5))
    return writer.add("Mul", half, writer.add("Add", inner, writer.constant(1.0)))


def _gelu_tanh(writer: Writer, _: Activation, x: str) -> str:
    cube = writer.add("Mul", x, writer.add("Mul", x, x))
    sum_ = writer.add("Add", x, writer.add("Mul", cube, writer.constant(0.044715)))
    scaled = writer.add("Mul", sum_, writer.constant(np.sqrt(2 / np.pi)))
    return _gelu(writer, x, writer.add("Tanh", scaled))


def _gelu_erf(writer: Writer, _: Activation, x: str) -> str:
    scaled = writer.add("Mul", x, writer.constant(np.sqrt(0.5)))
    return _gelu(writer, x, writer.add("Erf", scaled))


def _hard_sigmoid(writer: Writer, _: Activation, x: str) -> str:
    return writer.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


ACTIVATIONS: dict[str, Callable[[Writer, Activation, str], str]] = {
    "identity": lambda writer, _, x: x,
    "sigmoid": lambda writer, _, x: writer.add("Sigmoid", x),
    "silu": lambda writer, _, x: writer.add("Mul", x, writer.add("Sigmoid", x)),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda writer, a, x: writer.add("Mul", x, _hard_sigmoid(writer, a, x)),
    "gelu_tanh": _gelu_tanh,
    "gelu_erf": _gelu_erf,
    "tanh": lambda writer, _, x: writer.add("Tanh", x),
    "leaky_relu": lambda writer, a, x: writer.add("LeakyRelu", x, alpha=a.low),
    "elu": lambda writer, a, x: writer.add("Elu", x, alpha=a.low),
    "softplus": lambda writer, _, x: writer.add("Softplus", x),
}
