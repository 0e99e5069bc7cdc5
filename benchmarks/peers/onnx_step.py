"""A step of generation as an ONNX file, as other libraries write one.

Inputs are the token's row and, block by block, keys and values of the tokens before it (batch,
tokens, heads, size); outputs are the row behind the blocks, and those caches with the token's own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.onnx_rows import ORDERS, attended, normed
from benchmarks.peers.onnx_writer import Writer, activate, info
from sparsejax.compiler.graph.activation import Activation

EPSILON = 1e-5


def export_step(params: Mapping[str, Any], batch: int, past: int, path: Path) -> None:
    """Write blocks of flax's layers with a norm before each and one behind all.

    Args:
        params: Block_0, ..., each LayerNorm_0, MultiHeadDotProductAttention_0, LayerNorm_1,
            Dense_0 and Dense_1, and LayerNorm_0.
        batch: number of sequences.
        past: number of tokens before.
        path: of the file.
    """
    writer, x = Writer(), "input_0"
    *_, width = params["Block_0"]["Dense_1"]["kernel"].shape
    inputs, kept = [info(x, (batch, 1, width))], []
    for i in range(len(params) - 1):
        block, caches = params[f"Block_{i}"], (f"input_{2 * i + 1}", f"input_{2 * i + 2}")
        attention = block["MultiHeadDotProductAttention_0"]
        heads, size, _ = attention["out"]["kernel"].shape
        inputs += [info(name, (batch, past, heads, size)) for name in caches]
        y = _norm(writer, block["LayerNorm_0"], x)
        shape = writer.constant([batch, 1, heads, size], np.int64)
        q, k, v = (
            writer.add("Reshape", _linear(writer, attention[side], y), shape)
            for side in ("query", "key", "value")
        )
        k, v = (writer.add("Concat", *pair, axis=1) for pair in zip(caches, (k, v), strict=True))
        kept += [(name, (batch, past + 1, heads, size)) for name in (k, v)]
        turned = [
            writer.add("Transpose", side, perm=order)
            for side, order in zip((q, k, v), ORDERS, strict=True)
        ]
        y = attended(writer, *turned, size**-0.5, (batch, 1, width))
        x = writer.add("Add", x, _linear(writer, attention["out"], y))
        up = _linear(writer, block["Dense_0"], _norm(writer, block["LayerNorm_1"], x))
        down = _linear(writer, block["Dense_1"], activate(writer, Activation("gelu_tanh"), up))
        x = writer.add("Add", x, down)
    results = [(_norm(writer, params["LayerNorm_0"], x), (batch, 1, width)), *kept]
    writer.save(inputs, [info(name, shape) for name, shape in results], path)


def _norm(writer: Writer, layer: Mapping[str, Any], x: str) -> str:
    return normed(writer, x, layer["scale"], layer["bias"], EPSILON)


def _linear(writer: Writer, layer: Mapping[str, Any], x: str) -> str:
    """A layer of flax, whose kernel may have its inputs or outputs as heads of some size."""
    bias = np.ravel(layer["bias"])
    weights = np.reshape(layer["kernel"], (-1, len(bias)))
    return writer.add(
        "Add", writer.add("MatMul", x, writer.constant(weights)), writer.constant(bias)
    )
