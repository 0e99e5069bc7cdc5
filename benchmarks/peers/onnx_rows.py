"""Norms, softmax and attention as ONNX nodes, spelled as the engines' own fusions look for them."""

from collections.abc import Sequence

import numpy as np

from benchmarks.peers.onnx_writer import Writer
from sparsejax.compiler.graph.graph import Node

ORDERS = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))  # of q, k and v (batch, tokens, heads, size)


def norm(writer: Writer, node: Node) -> None:
    """Of the last axis."""
    op, x = node.op, writer.read(node.inputs[0], image=False)
    if op.axis % len(node.inputs[0].shape) != len(node.inputs[0].shape) - 1:
        raise ValueError(f"export needs norms of the last axis, got {op}.")
    y = normed(writer, x, op.scale, op.shift, op.epsilon, centred=op.centred)
    writer.write(node.outputs[0], y, image=False)


def normed(
    writer: Writer,
    x: str,
    scale: np.ndarray,
    shift: np.ndarray,
    epsilon: float,
    *,
    centred: bool = True,
) -> str:
    """The name of (x - mean) / sqrt(variance + epsilon) * scale + shift."""
    mean = lambda name: writer.add("ReduceMean", name, axes=[-1])
    centre = writer.add("Sub", x, mean(x)) if centred else x
    variance = mean(writer.add("Pow", centre, writer.constant(2.0)))
    root = writer.add("Sqrt", writer.add("Add", variance, writer.constant(epsilon)))
    scaled = writer.add("Mul", writer.add("Div", centre, root), writer.constant(scale))
    return writer.add("Add", scaled, writer.constant(shift))


def softmax(writer: Writer, node: Node) -> None:
    """Of any axis."""
    y = writer.add("Softmax", writer.read(node.inputs[0], image=False), axis=node.op.axis)
    writer.write(node.outputs[0], y, image=False)


def attention(writer: Writer, node: Node) -> None:
    """Without a mask, or causal."""
    op = node.op
    if op.mask not in ("none", "causal"):
        raise ValueError(f"export needs attention without a mask or causal, got {op.mask}.")
    q, k, v = (_heads(writer, node, i, order) for i, order in enumerate(ORDERS))
    seen = np.tri(op.length) if op.mask == "causal" else None
    y = attended(writer, q, k, v, op.scale, node.outputs[0].shape, seen, op.fill)
    writer.write(node.outputs[0], y, image=False)


def attended(
    writer: Writer,
    q: str,
    k: str,
    v: str,
    scale: float,
    shape: Sequence[int],
    seen: np.ndarray | None = None,
    fill: float = 0.0,
) -> str:
    """The name of softmax(scale q k) v in a shape; scores that are not `seen` are `fill`."""
    scores = writer.add("Mul", writer.add("MatMul", q, k), writer.constant(scale))
    if seen is not None:
        scores = writer.add("Where", writer.constant(seen, np.bool_), scores, writer.constant(fill))
    y = writer.add("MatMul", writer.add("Softmax", scores, axis=-1), v)
    y = writer.add("Transpose", y, perm=(0, 2, 1, 3))
    return writer.add("Reshape", y, writer.constant(shape, np.int64))


def _heads(writer: Writer, node: Node, side: int, order: tuple[int, ...]) -> str:
    op, value = node.op, node.inputs[side]
    heads, size = op.first.shape[1], op.value_size if side == 2 else op.size
    channels = (op.first[side][:, None] + np.arange(size)).ravel()
    x = writer.read(value, image=False)
    if not np.array_equal(channels, np.arange(value.shape[-1])):
        x = writer.add("Gather", x, writer.constant(channels, np.int64), axis=-1)
    shape = writer.constant([*value.shape[:-1], heads, size], np.int64)
    return writer.add("Transpose", writer.add("Reshape", x, shape), perm=order)
