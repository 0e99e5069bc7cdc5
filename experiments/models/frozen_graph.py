"""The constants of a TensorFlow frozen graph, read with NumPy alone.

A frozen graph is one protobuf message, GraphDef; only the fields needed to find the constants are
looked at. Field numbers are those of tensorflow/core/framework/{graph,node_def,attr_value,tensor,
tensor_shape}.proto.
"""

from collections.abc import Iterator

import numpy as np

GRAPH_NODE = 1
NODE_NAME, NODE_OP, NODE_ATTR = 1, 2, 5
ENTRY_KEY, ENTRY_VALUE = 1, 2
ATTR_TENSOR = 8
TENSOR_DTYPE, TENSOR_SHAPE, TENSOR_CONTENT = 1, 2, 4
SHAPE_DIM, DIM_SIZE = 2, 1
FLOAT32 = 1


def varint(message: memoryview, start: int) -> tuple[int, int]:
    """An integer of 7 bits per byte, lowest first, and where it ends."""
    value = 0
    for i in range(10):
        if start + i >= len(message):
            break
        byte = message[start + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, start + i + 1
    raise ValueError("A frozen graph ends inside an integer: the file is cut or is no graph.")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The (number, value) pairs of a message; values are integers or bytes."""
    position = 0
    while position < len(message):
        key, position = varint(message, position)
        wire_type = key & 7
        if wire_type == 0:
            value, position = varint(message, position)
            yield key >> 3, value
            continue
        if wire_type == 2:
            size, position = varint(message, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"A frozen graph has no wire type {wire_type}: the file is no graph.")
        if position + size > len(message):
            raise ValueError("A frozen graph ends inside a field: the file is cut or is no graph.")
        yield key >> 3, message[position : position + size]
        position += size


def float_tensor(message: memoryview) -> np.ndarray | None:
    """The float32 array in a TensorProto; None for other types and for arrays kept elsewhere."""
    entries = dict(fields(message))
    if entries.get(TENSOR_DTYPE) != FLOAT32 or TENSOR_CONTENT not in entries:
        return None
    dims = [
        dict(fields(dim)).get(DIM_SIZE, 0)
        for number, dim in fields(entries.get(TENSOR_SHAPE, memoryview(b"")))
        if number == SHAPE_DIM
    ]
    return np.frombuffer(entries[TENSOR_CONTENT], "<f4").reshape(dims)


def float_constants(content: bytes) -> dict[str, np.ndarray]:
    """The float32 constants of a serialised GraphDef by the names of their nodes.

    Raises:
        ValueError: the bytes are no frozen graph.
    """
    constants = {}
    for number, node in fields(memoryview(content)):
        if number != GRAPH_NODE or isinstance(node, int):
            continue
        entries = list(fields(node))
        if (NODE_OP, b"Const") not in entries:
            continue
        name = next(bytes(value).decode() for key, value in entries if key == NODE_NAME)
        for entry in (dict(fields(value)) for key, value in entries if key == NODE_ATTR):
            if entry[ENTRY_KEY] != b"value":
                continue
            tensor = dict(fields(entry[ENTRY_VALUE])).get(ATTR_TENSOR)
            array = None if tensor is None else float_tensor(tensor)
            if array is not None:
                constants[name] = array
    return constants
