"""Compiled functions into files."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from safetensors.numpy import save as to_safetensors

from sparsejax.compiler.compiled import CompiledFunction, Version
from sparsejax.compiler.engine.lower import lower, with_rows
from sparsejax.compiler.engine.program import read_steps
from sparsejax.compiler.files import trees
from sparsejax.compiler.files.graph import written
from sparsejax.compiler.graph.graph import Node, Region, Value
from sparsejax.compiler.nodes.control import Control
from sparsejax.doors import Need, checked
from sparsejax.ops import _ffi
from sparsejax.patterns.layout import Layout

# Of files written here, and of the oldest reader that can read them; xla_ops/files/model.h.
VERSION, READER = 1, 1
DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16}
COMPILED = Need(
    "a function that sj.compile made",
    lambda thing: isinstance(thing, CompiledFunction),
    "compile it first: sj.compile(apply_fn, params, x)",
)


@checked(fast=COMPILED)
def save(
    fast: CompiledFunction,
    path: str | PathLike,
    *,
    values: Literal["float32", "float16"] = "float32",
) -> None:
    """Write a compiled function to a file that runs anywhere: `sj.load` here, C elsewhere.

    The file is a safetensors file with the graph as JSON in its header and no code. Weights stand
    in it as their nonzeros, and where these are, in the form that takes the fewest bytes; they are
    packed for an instruction set when the file is loaded. The batch of the inputs is free, their
    other sizes are those of the example that the function was compiled with.

    Args:
        fast: from `sj.compile`; all of it must be one region, as its report says. What was given
            back to XLA because it is faster there runs in the kernels from a file.
        path: of the file.
        values: in which precision weights are stored; biases are float32. With "float32" what is
            loaded computes the same bits on the example's shapes.

    Raises:
        TypeError: when inputs or outputs are in containers other than tuples, lists and dicts.
        ValueError: when something stays in XLA, or an input is not used; it says what.

    Example:
        >>> import tempfile
        >>> fast = sj.compile(model.apply, params, x, tune=False)
        >>> path = tempfile.mkdtemp() + "/net.sjx"
        >>> sj.save(fast, path)
        >>> sj.load(path)(x).shape == fast(x).shape
        True
    """
    if values not in DTYPES:
        raise ValueError(f'save needs values="float32" or "float16", got {values!r}.')
    Path(path).write_bytes(to_bytes(fast, DTYPES[values]))


def to_bytes(fast: CompiledFunction, dtype: type[np.floating]) -> bytes:
    """The file of a compiled function, its weights in `dtype`."""
    made, input_tree = fast._first(), jax.tree.structure(fast._example)
    region = _whole(made, _input_names(input_tree))
    layouts = {node: choice.layout for node, choice in made.choices.items()}
    return encoded(region, layouts, input_tree, made.traced.output_tree, dtype)


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
    program = lower(region, layouts)
    if region.rows:
        program = with_rows(program, math.prod(region.outputs[0].shape[1:-1]))
    paths = {step: node.op.path for node, step in program.steps.items()}  # type: ignore[attr-defined]
    steps, tensors = written(program, paths, dtype)
    sizes, _ = read_steps(program.words)
    graph = {
        "version": VERSION,
        "reader": READER,
        "writer": f"sparsejax {importlib.metadata.version('sparsejax')}",
        "items": _items(region),
        "inputs": _ports(region.inputs, _input_names(input_tree)),
        "outputs": _ports(region.outputs, trees.names(output_tree, "output")),
        "input_tree": trees.to_json(input_tree, "inputs"),
        "output_tree": trees.to_json(output_tree, "outputs"),
        "values": sizes,
        "steps": steps,
    }
    file = to_safetensors(tensors, {"sparsejax": json.dumps(graph, separators=(",", ":"))})
    _ffi.read_model(file)  # what no reader would take is refused here
    return file


def _items(region: Region) -> str:
    if region.rows:
        return "rows"
    return "channels_last" if region.channels_last else "channels_first"


def _input_names(structure: Any) -> list[str]:
    """The paths of all arguments; those within it of a sole argument."""
    arguments = structure.children()
    return trees.names(arguments[0] if len(arguments) == 1 else structure, "input")


def _ports(values: Sequence[Value], names: Sequence[str]) -> list[dict[str, Any]]:
    shapes = (
        ["batch", *value.shape[1:]] if len(value.shape) > 1 else list(value.shape)
        for value in values
    )
    return [
        {"name": name, "shape": shape, "dtype": "float32"}
        for name, shape in zip(names, shapes, strict=True)
    ]


def _is_loop(node: Node) -> bool:
    return isinstance(node.op, Control)


def _whole(made: Version, names: Sequence[str]) -> Region:
    """The region that is the whole function of inputs of these names, in their order."""
    graph, report = made.graph, made.report
    regions = [part for part in made.schedule if isinstance(part, Region)]
    loops = [str(part.op) for part in made.schedule if isinstance(part, Node) and _is_loop(part)]
    if len(regions) != 1 or report.xla or loops:
        named = [
            f"{count} {name}" + (f" ({report.reasons[name]})" if report.reasons[name] else "")
            for name, count in report.xla.items()
        ]
        left = "; ".join([*named, *loops])
        raise ValueError(
            "save needs a function that is one custom call with nothing left in XLA, got "
            f"{len(regions)} custom calls and in XLA {left or 'nothing'}; leave that out."
        )
    (region,) = regions
    known = {v for node in region.nodes for v in node.outputs} | set(region.inputs)
    unused = [n for n, v in zip(names, graph.inputs, strict=True) if v not in set(region.inputs)]
    constant = [v for v in graph.outputs if v not in known]
    if unused or constant:
        raise ValueError(
            "save needs a function that uses all of its inputs and computes all of its outputs, "
            f"got {f'no use of {unused}' if unused else f'{len(constant)} constant outputs'}; "
            "leave them out."
        )
    return Region(region.nodes, graph.inputs, graph.outputs, region.rows, region.channels_last)
