"""A function that is one region, or a sequence of programs, as the bytes of a file."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save as to_safetensors

from sparsejax.compiler.engine.lower import lower, with_rows
from sparsejax.compiler.engine.program import read_steps
from sparsejax.compiler.files import trees
from sparsejax.compiler.files.graph import written
from sparsejax.compiler.files.values import Sequences
from sparsejax.compiler.graph.graph import Graph, Node, Region, Value
from sparsejax.compiler.nodes.attention import ATTENTION
from sparsejax.compiler.nodes.cached_attention import CACHED_ATTENTION
from sparsejax.compiler.nodes.elementwise import IN_FILES
from sparsejax.ops import _ffi
from sparsejax.ops._ffi import CODES
from sparsejax.patterns.layout import Layout

VERSION = 4  # of files written here; xla_ops/files/model.h
GROUPS = 2  # the oldest reader that knows groups of channels
SEQUENCES = 3  # the oldest that knows several programs, and loops
NUMBERS = 4  # the oldest that knows lookups, comparisons, whole numbers, and one query's attention
NEW_BINARIES = {"div", "min", "slope", *IN_FILES}
Port = dict[str, Any]


def encoded(
    region: Region,
    layouts: Mapping[Node, Layout],
    input_tree: Any,
    output_tree: Any,
    dtype: type[np.floating],
) -> bytes:
    """The file of a function that is one region.

    Args:
        region: whose inputs and outputs are the function's.
        layouts: of its products.
        input_tree: the structure of the arguments.
        output_tree: the structure of what is returned.
        dtype: of the values of weights.
    """
    rows = math.prod(region.outputs[0].shape[1:-1])
    steps, tensors = _program(region, rows, layouts, dtype)
    ports = _ports(region.inputs, 2), _ports(region.outputs, 2)
    return _packed(_steps_reader(steps["steps"]), ports, (input_tree, output_tree), steps, tensors)


class InSequence(NamedTuple):
    """A function as a sequence of programs.

    Attributes:
        graph: whose inputs and outputs are the function's.
        whole: programs and constants.
        sequence: of these.
        layouts: of the products.
    """

    graph: Graph
    whole: Sequences
    sequence: dict[str, Any]
    layouts: Mapping[Node, Layout]


def encoded_sequence(
    made: InSequence, structures: tuple[Any, Any], dtype: type[np.floating]
) -> bytes:
    """The file of a function that is a sequence of programs.

    Args:
        made: the function.
        structures: of the arguments, and of what is returned.
        dtype: of the values of weights.
    """
    programs, tensors = [], {}  # type: tuple[list[dict[str, Any]], dict[str, np.ndarray]]
    for region, rows in made.whole.programs:
        steps, own = _program(region, rows, made.layouts, dtype)
        tensors |= {f"{len(programs)}/{name}": array for name, array in own.items()}
        sides = {"inputs": region.inputs, "outputs": region.outputs}
        shapes = {side: _shapes(values, region, rows) for side, values in sides.items()}
        programs.append(shapes | steps)
    if made.whole.constants:
        tensors["constants"] = np.concatenate(made.whole.constants)
    rank = 1 if made.whole.batch > 1 else math.inf
    ports = _ports(made.graph.inputs, rank), _ports(made.graph.outputs, rank)
    contents = {"programs": programs, "sequence": made.sequence}
    return _packed(_reader(ports, contents), ports, structures, contents, tensors)


def _reader(ports: tuple[list[Port], list[Port]], contents: Mapping[str, Any]) -> int:
    """The oldest that can read a sequence."""
    new = any(port["dtype"] != "float32" for side in ports for port in side)
    steps = [step for program in contents["programs"] for step in program["steps"]]
    return max(SEQUENCES, NUMBERS * (new or _takes(contents["sequence"])), _steps_reader(steps))


def _steps_reader(steps: Sequence[Mapping[str, Any]]) -> int:
    """The oldest that knows all steps."""
    if any(map(_is_new, steps)):
        return NUMBERS
    return GROUPS if any("groups" in step for step in steps) else 1


def _is_new(step: Mapping[str, Any]) -> bool:
    if step["op"] == ATTENTION:
        return step["channels"][4] == CODES["mask"]["choose_queries"]
    return step["op"] == CACHED_ATTENTION or step.get("binary") in NEW_BINARIES


def _takes(sequence: Mapping[str, Any]) -> bool:
    """Is anything looked up?"""
    return any("take" in p or ("body" in p and _takes(p["body"])) for p in sequence["parts"])


def _program(
    region: Region, rows: int, layouts: Mapping[Node, Layout], dtype: type[np.floating]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A region as JSON, and its tensors.

    Args:
        region: to write.
        rows: of one item, where it works on rows.
        layouts: of its products.
        dtype: of the values of weights.
    """
    program = lower(region, layouts)
    if region.rows:
        program = with_rows(program, rows)
    paths = {step: node.op.path for node, step in program.steps.items()}  # type: ignore[attr-defined]
    steps, tensors = written(program, paths, dtype)
    sizes, _ = read_steps(program.words)
    return {"items": _items(region), "values": sizes, "steps": steps}, tensors


def _packed(
    reader: int,
    ports: tuple[list[Port], list[Port]],
    structures: tuple[Any, Any],
    contents: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> bytes:
    """The file, which any reader would take.

    Args:
        reader: the oldest that can read it.
        ports: inputs and outputs.
        structures: the trees of these.
        contents: what is in the graph beside them.
        tensors: by name.
    """
    input_tree, output_tree = structures
    graph = {
        **head(reader),
        "layouts": _ffi.instruction_set(),
        "inputs": _named(ports[0], trees.input_names(input_tree)),
        "outputs": _named(ports[1], trees.names(output_tree, "output")),
        "input_tree": trees.to_json(input_tree, "inputs"),
        "output_tree": trees.to_json(output_tree, "outputs"),
        **contents,
    }
    file = to_safetensors(dict(tensors), {"sparsejax": json.dumps(graph, separators=(",", ":"))})
    _ffi.read_model(file)  # what no reader would take is refused here
    return file


def head(reader: int = 1) -> dict[str, Any]:
    """What every file begins with; `reader` is the oldest that can read it."""
    writer = f"sparsejax {importlib.metadata.version('sparsejax')}"
    return {"version": VERSION, "reader": reader, "writer": writer}


def _items(region: Region) -> str:
    if region.rows:
        return "rows"
    return "channels_last" if region.channels_last else "channels_first"


def _ports(values: Sequence[Value], least: float) -> list[Port]:
    """Inputs or outputs, the batch of those with at least so many axes free."""
    free = lambda shape: ["batch", *shape[1:]] if len(shape) >= least else list(shape)
    return [{"shape": free(v.shape), "dtype": np.dtype(v.dtype).name} for v in values]


def _shapes(values: Sequence[Value], region: Region, rows: int) -> list[dict[str, Any]]:
    """Of a program's inputs or outputs."""
    own = [rows] if rows > 1 else []
    shapes = [[*own, v.shape[-1]] if region.rows else v.shape[1:] for v in values]
    return [{"shape": ["batch", *shape], "dtype": "float32"} for shape in shapes]


def _named(ports: Sequence[Port], names: Sequence[str]) -> list[Port]:
    return [{"name": name, **port} for name, port in zip(names, ports, strict=True)]
