"""Compiled functions into files."""

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from safetensors.numpy import save as to_safetensors

from sparsejax.compiler.compiled import CompiledFunction, Version
from sparsejax.compiler.engine.lower import lower, with_rows
from sparsejax.compiler.engine.program import read_steps
from sparsejax.compiler.files import trees
from sparsejax.compiler.files.exported import write_exported
from sparsejax.compiler.files.graph import written
from sparsejax.compiler.graph.graph import Node, Region, Value
from sparsejax.compiler.nodes.control import Control
from sparsejax.doors import Need, checked
from sparsejax.ops import _ffi
from sparsejax.patterns.layout import Layout

VERSION = 2  # of files written here; xla_ops/files/model.h
GROUPS = 2  # the oldest reader that knows groups of channels
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
    allow_xla: bool = False,
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
        allow_xla: write a function of which something stays in XLA, a loop say, too: the file says
            what, and beside it, with the suffix `.stablehlo`, is the whole function as a program
            for XLA (`jax.export`), which JAX alone runs, with dense weights.

    Raises:
        TypeError: when inputs or outputs are in containers other than tuples, lists and dicts.
        ValueError: when something stays in XLA, or an input is not used; it says what and why.

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
    refused = _refusal(fast) if allow_xla else None
    if not refused:
        Path(path).write_bytes(to_bytes(fast, DTYPES[values]))
        return
    if values != "float32":
        raise ValueError(f'save needs values="float32" for what XLA runs, got "{values}".')
    apply_fn = partial(fast._apply_fn, fast._params)
    write_exported(Path(path), apply_fn, fast._example, refused.left, _head())


def to_bytes(fast: CompiledFunction, dtype: type[np.floating]) -> bytes:
    """The file of a compiled function, its weights in `dtype`."""
    if refused := _refusal(fast):
        raise ValueError(refused.sentence)
    made, input_tree = fast._first(), jax.tree.structure(fast._example)
    layouts = {node: choice.layout for node, choice in made.choices.items()}
    return encoded(_whole(made), layouts, input_tree, made.traced.output_tree, dtype)


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
        **_head(steps),
        "items": _items(region),
        "inputs": _ports(region.inputs, trees.input_names(input_tree)),
        "outputs": _ports(region.outputs, trees.names(output_tree, "output")),
        "input_tree": trees.to_json(input_tree, "inputs"),
        "output_tree": trees.to_json(output_tree, "outputs"),
        "values": sizes,
        "steps": steps,
    }
    file = to_safetensors(tensors, {"sparsejax": json.dumps(graph, separators=(",", ":"))})
    _ffi.read_model(file)  # what no reader would take is refused here
    return file


def _head(steps: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    writer = f"sparsejax {importlib.metadata.version('sparsejax')}"
    reader = GROUPS if any("groups" in step for step in steps) else 1
    return {"version": VERSION, "reader": reader, "writer": writer}


def _items(region: Region) -> str:
    if region.rows:
        return "rows"
    return "channels_last" if region.channels_last else "channels_first"


def _ports(values: Sequence[Value], names: Sequence[str]) -> list[dict[str, Any]]:
    shapes = (
        ["batch", *value.shape[1:]] if len(value.shape) > 1 else list(value.shape)
        for value in values
    )
    return [
        {"name": name, "shape": shape, "dtype": "float32"}
        for name, shape in zip(names, shapes, strict=True)
    ]


class Refusal(NamedTuple):
    """Why a function is not one region.

    Attributes:
        left: what stays in XLA and why, in the words of the report.
        sentence: for who wants to save it.
    """

    left: list[str]
    sentence: str


def _refusal(fast: CompiledFunction) -> Refusal | None:
    """Why no file can hold the function; None where one can."""
    made = fast._first()
    graph, report, schedule = made.graph, made.report, made.schedule
    regions = [part for part in schedule if isinstance(part, Region)]
    apart = [part.op for part in schedule if isinstance(part, Node)]
    left = [f"1 {op} (a loop or branch)" for op in apart if isinstance(op, Control)]
    left += [f"{count} {name} ({report.reasons[name]})" for name, count in report.xla.items()]
    if len(regions) != 1 or left:
        return Refusal(
            left or [f"{len(regions)} custom calls"],
            "save needs a function that is one custom call with nothing left in XLA, got "
            f"{len(regions)} custom calls and in XLA {'; '.join(left) or 'nothing'}; leave that "
            "out, or pass allow_xla=True for what JAX alone runs.",
        )
    names = trees.input_names(jax.tree.structure(fast._example))
    read, made_there = set(regions[0].inputs), {v for n in regions[0].nodes for v in n.outputs}
    unused = [name for name, v in zip(names, graph.inputs, strict=True) if v not in read]
    constant = [v for v in graph.outputs if v not in made_there | read]
    if not unused and not constant:
        return None
    wrong = f"no use of {unused}" if unused else f"{len(constant)} constant outputs"
    return Refusal(
        [wrong],
        "save needs a function that uses all of its inputs and computes all of its outputs, "
        f"got {wrong}; leave them out, or pass allow_xla=True for what JAX alone runs.",
    )


def _whole(made: Version) -> Region:
    """The region that is the whole function, with the function's inputs in their order."""
    (region,) = (part for part in made.schedule if isinstance(part, Region))
    graph = made.graph
    return Region(region.nodes, graph.inputs, graph.outputs, region.rows, region.channels_last)
