"""Why no file can hold a function."""

from collections import Counter
from typing import NamedTuple

import jax

from sparsejax.compiler.compiled import CompiledFunction, Version
from sparsejax.compiler.files import trees
from sparsejax.compiler.files.needed import needed, with_graphs
from sparsejax.compiler.files.sequence import can_run
from sparsejax.compiler.graph.graph import Node
from sparsejax.compiler.nodes.control import Cond, Control, While


class Refusal(NamedTuple):
    """Why a function is not one region.

    Attributes:
        left: what stays in XLA and why, in the words of the report.
        sentence: for who wants to save it.
    """

    left: list[str]
    sentence: str


def refusal(fast: CompiledFunction) -> Refusal | None:
    """Why no file can hold the function; None where one can."""
    made, left = _judged(fast)
    if left:
        return Refusal(
            left,
            "save needs a function of which nothing stays in XLA, but for loops of which it is "
            f"known how often they run, got in XLA {'; '.join(left)}; leave that out, or pass "
            "allow_xla=True for what JAX alone runs.",
        )
    graph = made.graph
    parts = needed(made.schedule, set(graph.outputs))
    names = trees.input_names(jax.tree.structure(fast._example))
    read = {v for part in parts for v in part.inputs} | set(graph.outputs)
    unused = [name for name, v in zip(names, graph.inputs, strict=True) if v not in read]
    constant = [v for v in graph.outputs if v.constant is not None]
    if not unused and not constant:
        return None
    wrong = f"no use of {unused}" if unused else f"{len(constant)} constant outputs"
    return Refusal(
        [wrong],
        "save needs a function that uses all of its inputs and computes all of its outputs, "
        f"got {wrong}; leave them out, or pass allow_xla=True for what JAX alone runs.",
    )


def _judged(fast: CompiledFunction) -> tuple[Version, list[str]]:
    """The version for the example, or for two items where only that can be saved, and what is left.

    Under `jax.vmap` a loop over one item is written with other moves than one over several.
    """
    made = fast._first()
    left = _left(made)
    shapes = [leaf.shape for leaf in jax.tree.leaves(fast._example)]
    if not left or max(map(len, shapes)) < 2 or any(shape[:1] != (1,) for shape in shapes):
        return made, left
    try:
        two = fast._for_batch(2)
    except Exception:  # of any kind: the user's function met another size
        return made, left
    return (made, left) if _left(two) else (two, [])


def _left(made: Version) -> list[str]:
    """What no file can hold, and why."""
    parts = needed(made.schedule, set(made.graph.outputs))
    names: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for graph, part in with_graphs(made.graph, parts):
        if isinstance(part, Node) and not can_run(graph, part):
            names[part.op.name] += 1
            reasons.setdefault(part.op.name, _reason(made, part))
    return [f"{count} {name} ({reasons[name]})" for name, count in names.most_common()]


def _reason(made: Version, node: Node) -> str:
    if isinstance(node.op, While):
        return "a loop that ends when the values say so"
    if isinstance(node.op, Control):
        return (
            "a branch that the values choose"
            if isinstance(node.op, Cond)
            else "a loop with effects"
        )
    return made.report.reasons.get(node.op.name, "no kind of node")
