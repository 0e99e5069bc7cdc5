"""Compiled functions into files."""

from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from sparsejax import text
from sparsejax.compiler.compiled import CompiledFunction, Version
from sparsejax.compiler.files.encoded import InSequence, encoded, encoded_sequence, head
from sparsejax.compiler.files.exported import write_exported
from sparsejax.compiler.files.items import Apart
from sparsejax.compiler.files.needed import needed
from sparsejax.compiler.files.refusal import refusal
from sparsejax.compiler.files.sequence import sequence_of
from sparsejax.compiler.files.values import Sequences
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.doors import Need, checked
from sparsejax.patterns.layout import Layout

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
    packed for an instruction set when the file is loaded. The batch, the first axis of the inputs,
    is free, their other sizes are those of the example that the function was compiled with; a
    warning says where the batch is not free, too, as items meet or have no axis of their own.

    Args:
        fast: from `sj.compile`: layers, what stands between them, lookups of rows, and loops of
            which it is known how often they run, as in recurrent networks. What was given back to
            XLA because it is faster there runs in the kernels from a file.
        path: of the file.
        values: in which precision weights are stored; biases are float32. With "float32" what is
            loaded computes the same bits on the example's shapes, but for sums that XLA runs here.
        allow_xla: write a function of which something stays in XLA, a sort say, too: the file says
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
    refused = refusal(fast) if allow_xla else None
    if not refused:
        Path(path).write_bytes(to_bytes(fast, DTYPES[values]))
        return
    if values != "float32":
        raise ValueError(f'save needs values="float32" for what XLA runs, got "{values}".')
    apply_fn = partial(fast._apply_fn, fast._params)
    write_exported(Path(path), apply_fn, fast._example, refused.left, head())


def to_bytes(fast: CompiledFunction, dtype: type[np.floating]) -> bytes:
    """The file of a compiled function, its weights in `dtype`."""
    if refused := refusal(fast):
        raise ValueError(refused.sentence)
    made = fast._first()
    structures = jax.tree.structure(fast._example), made.traced.output_tree
    region, *others = made.schedule
    if others or not isinstance(region, Region):
        return encoded_sequence(_in_sequence(fast), structures, dtype)
    graph = made.graph
    whole = Region(region.nodes, graph.inputs, graph.outputs, region.rows, region.channels_last)
    return encoded(whole, _layouts(made), *structures, dtype)


def _layouts(made: Version) -> dict[Node, Layout]:
    return {node: choice.layout for node, choice in made.choices.items()}


def _in_sequence(fast: CompiledFunction) -> InSequence:
    """The function as a sequence of programs, for any batch where that can be."""
    leaves = jax.tree.leaves(fast._example)
    try:
        return _of_items(fast, [leaf.shape for leaf in leaves])
    except Apart as apart:
        if any(len(leaf.shape) > 1 for leaf in leaves):
            text.warn(f"the batch of the saved function is that of the example, as {apart}.")
    return _of_batch(fast._first(), 1)


def _of_items(fast: CompiledFunction, shapes: list[tuple[int, ...]]) -> InSequence:
    """The function of any batch; of one item it is not told what its axis is, but of two."""
    batches = {shape[0] if shape else 0 for shape in shapes}
    if len(batches) != 1 or 0 in batches or max(map(len, shapes)) < 2:
        raise Apart("its inputs have no first axis of one size")
    (batch,) = batches
    if batch > 1:
        return _of_batch(fast._first(), batch)
    try:
        two = fast._for_batch(2)
    except Exception as error:  # of any kind: the user's function met another size
        raise Apart(f"for two items it fails: {error}") from error
    return _of_batch(two, 2)


def _of_batch(made: Version, batch: int) -> InSequence:
    whole = Sequences(batch)
    parts = needed(made.schedule, set(made.graph.outputs))
    return InSequence(made.graph, whole, sequence_of(made.graph, parts, whole), _layouts(made))
