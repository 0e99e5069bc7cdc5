"""Functions that JAX alone runs: a file that names what stays in XLA, and a program beside it.

The file itself holds no code and no weights; the program, which does, is `jax.export`'s and lies in
a file of its own, so that nobody runs it who did not ask for it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_safetensors

from sparsejax import text
from sparsejax.compiler.files import ports, trees
from sparsejax.compiler.files.contents import FileReport, report_of

PLATFORMS = ("cpu", "cuda", "tpu")
DAMAGE = (KeyError, TypeError, AttributeError, RecursionError)  # of a graph with other contents
Shape = jax.ShapeDtypeStruct


def write_exported(
    path: Path, apply_fn: Callable, example: tuple, left: Sequence[str], head: Mapping[str, Any]
) -> None:
    """Write both files.

    Args:
        path: of the file; the program gets the suffix `.stablehlo` behind it.
        apply_fn: of the inputs alone.
        example: shapes of the inputs.
        left: what stays in XLA.
        head: versions and writer.
    """
    leaves, input_tree = jax.tree.flatten(example)
    exported = _exported(apply_fn, leaves, input_tree)
    program = _serialized(exported)
    beside = _beside(path)
    graph = {
        **head,
        "xla": list(left),
        "program": {"name": beside.name, "sha256": hashlib.sha256(program).hexdigest()},
        "inputs": _ports(exported.in_avals, trees.input_names(input_tree)),
        "outputs": _ports(exported.out_avals, trees.names(exported.out_tree, "output")),
        "input_tree": trees.to_json(input_tree, "inputs"),
        "output_tree": trees.to_json(exported.out_tree, "outputs"),
    }
    path.write_bytes(to_safetensors({}, {"sparsejax": json.dumps(graph, separators=(",", ":"))}))
    beside.write_bytes(program)


class ExportedFunction:
    """A function of the inputs that runs in XLA; made by `sj.load(path, allow_xla=True)`.

    `jax.jit` and `jax.grad` (for the inputs, once) work, with any batch where the file's shapes say
    so.

    Attributes:
        inputs, outputs: each leaf of the arguments and of what is returned: name, shape and dtype.
        input_tree: the structure of the arguments.
    """

    def __init__(self, path: Path):
        self._graph = _graph(path.read_bytes())
        try:
            self._ports = ports.of_graph(self._graph)
            digest = self._graph["program"]["sha256"]
        except DAMAGE as error:
            raise ValueError(f"its graph is none that save writes, at {error}") from error
        self.inputs, self.outputs, self.input_tree, _ = self._ports
        beside = _beside(path)
        if not beside.exists():
            raise ValueError(f"its program for XLA is not beside it: {beside.name}")
        program = beside.read_bytes()
        if hashlib.sha256(program).hexdigest() != digest:
            raise ValueError(f"{beside.name} is not the program that was saved with it")
        self._num_bytes = path.stat().st_size + len(program)
        self._run = jax.jit(export.deserialize(bytearray(program)).call)

    def __call__(self, *args: Any) -> Any:
        """What the function that was saved returns."""
        arrays, batch = self._ports.arrays(args)
        if batch == 0:
            return self._ports.nothing()
        return self._run(*jax.tree.unflatten(self.input_tree, arrays))

    def report(self) -> FileReport:
        """What stays in XLA, inputs and outputs."""
        return report_of(self._graph, self._ports, self._num_bytes)


def is_exported(file: bytes) -> bool:
    """Does a file say that JAX alone runs its function?"""
    try:
        return "xla" in _graph(file)
    except (SafetensorError, ValueError, *DAMAGE):
        return False  # what is wrong the reader says


def _graph(file: bytes) -> dict[str, Any]:
    """The graph in a file's header."""
    length = int.from_bytes(file[:8], "little")
    deserialize(file)  # checks it
    return json.loads(json.loads(file[8 : 8 + length])["__metadata__"]["sparsejax"])


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".stablehlo")


def _exported(apply_fn: Callable, leaves: Sequence[Shape], structure: Any) -> export.Exported:
    """The function as a program, with a free batch where JAX can trace it so."""
    run = jax.jit(apply_fn)
    fixed = jax.tree.unflatten(structure, [Shape(leaf.shape, leaf.dtype) for leaf in leaves])
    make = lambda args: export.export(run, platforms=PLATFORMS)(*args)
    batched = [leaf for leaf in leaves if len(leaf.shape) > 1]
    if len({leaf.shape[0] for leaf in batched}) != 1:
        return make(fixed)
    (batch,) = export.symbolic_shape(ports.BATCH)
    free = [
        Shape((batch, *leaf.shape[1:]) if len(leaf.shape) > 1 else leaf.shape, leaf.dtype)
        for leaf in leaves
    ]
    try:
        return make(jax.tree.unflatten(structure, free))
    except Exception as error:  # of any kind: the user's function met a size that is no number
        text.warn(f"the batch of the saved function is that of the example, for any other: {error}")
        return make(fixed)


def _serialized(exported: export.Exported) -> bytearray:
    """The program, with its derivative where JAX has one."""
    try:
        return exported.serialize(vjp_order=1)
    except (ValueError, NotImplementedError) as error:
        text.warn(f"the saved function has no gradient: {error}")
        return exported.serialize(vjp_order=0)


def _ports(avals: Sequence[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    sizes = lambda shape: [size if isinstance(size, int) else str(size) for size in shape]
    return [
        {"name": name, "shape": sizes(aval.shape), "dtype": str(aval.dtype)}
        for name, aval in zip(names, avals, strict=True)
    ]
