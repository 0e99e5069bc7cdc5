"""Laws of arithmetic that save operations: what DNNFusion does to a graph before it fuses.

Reference: Niu et al., "DNNFusion: Accelerating Deep Neural Networks Execution with Advanced
Operator Fusion", PLDI 2021, arXiv:2108.13342, table 4. Its text was not at hand: the laws are
remembered, and each was checked anew.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from sparsejax.compiler.graph.edit import Edit
from sparsejax.compiler.graph.graph import Graph, Node
from sparsejax.compiler.nodes.control import graphs
from sparsejax.compiler.passes.ranges import Ranges
from sparsejax.compiler.passes.terms import Found, Term, bounded, built, cost, find, is_moved


class Law(NamedTuple):
    """Two terms that are the same number.

    Attributes:
        name: as it is written.
        before, after: the terms; that of lower case is one number.
        floats: are they the same for all floats, NaN, infinities and zeros among them?
        integers: are they for integers, whose sums and products wrap?
    """

    name: str
    before: Term
    after: Term
    floats: bool = False
    integers: bool = False


_RECIPROCALS = ("mul", ("reciprocal", "A"), ("reciprocal", ("mul", "A", "B")))
_ROOTS = ("mul", ("mul", "A", ("sqrt", "B")), ("mul", ("sqrt", "B"), "C"))
_MAGNITUDES = ("mul", ("mul", ("abs", "A"), "B"), ("abs", "C"))
_SQUARED = ("mul", ("mul", "A", "B"), ("mul", "B", "C"))
LAWS = (
    Law("|A| |B| = |A B|", ("mul", ("abs", "A"), ("abs", "B")), ("abs", ("mul", "A", "B")), True),
    Law("|A| B |C| = |A C| B", _MAGNITUDES, ("mul", ("abs", ("mul", "A", "C")), "B")),
    Law(
        "1/A 1/(A B) = (1/A)^2 1/B",
        _RECIPROCALS,
        ("mul", ("square", ("reciprocal", "A")), ("reciprocal", "B")),
    ),
    Law("(A sqrt B)(sqrt B C) = A C B", _ROOTS, ("mul", ("mul", "A", "C"), "B")),
    Law(
        "(A B)(B C) = A C B^2",
        _SQUARED,
        ("mul", ("mul", "A", "C"), ("square", "B")),
        integers=True,
    ),
    Law(
        "(A B) C = A (B C)",
        ("mul", ("mul", "A", "B"), "C"),
        ("mul", "A", ("mul", "B", "C")),
        integers=True,
    ),
    Law(
        "(A + B) + C = A + (B + C)",
        ("add", ("add", "A", "B"), "C"),
        ("add", "A", ("add", "B", "C")),
        integers=True,
    ),
    Law(
        "A C + A B = A (C + B)",
        ("add", ("mul", "A", "C"), ("mul", "A", "B")),
        ("mul", "A", ("add", "C", "B")),
        integers=True,
    ),
    Law(
        "A + A B = A (B + 1)",
        ("add", "A", ("mul", "A", "B")),
        ("mul", "A", ("add", "B", 1)),
        integers=True,
    ),
    Law(
        "A^2 - A C = A (A - C)",
        ("sub", ("square", "A"), ("mul", "A", "C")),
        ("mul", "A", ("sub", "A", "C")),
        integers=True,
    ),
    Law(
        "sum(A << s) = sum(A) << s",
        ("reduce_sum", ("shift_left", "A", "s")),
        ("shift_left", ("reduce_sum", "A"), "s"),
        integers=True,
    ),
    Law("prod(exp A) = exp(sum A)", ("reduce_prod", ("exp", "A")), ("exp", ("reduce_sum", "A"))),
)


class Saving(NamedTuple):
    """What a law saves at a place, the better the larger."""

    operations: int
    num_bytes: int
    law: Law
    found: Found
    root: Node


def apply_laws(graph: Graph, *, real: bool = False) -> Counter[str]:
    """Changes a traced graph, and those within its loops, by laws that save operations.

    The law that saves most operations anywhere is applied first, of these the one that leaves the
    fewest bytes of values between nodes; then the next, until none saves either.

    Args:
        graph: to be changed in place.
        real: apply laws that hold for real numbers. Else only where the result is the same but for
            rounding, whatever the inputs are: it is as large, of the same sign, and infinite or NaN
            in the same places. That holds for all floats by law, for integers, which wrap, or
            because all parts of both sides are bounded and nothing cancels, as far as `Ranges` can
            tell.

    Returns:
        How often each law was applied, by its name.

    Differs:
        The paper cuts the graph where none of its laws could hold and searches each part; here each
        place is looked at, as no law of the table reaches over such a cut. The associative laws are
        in it as examples, here also as such.
    """
    applied: Counter[str] = Counter()
    for each in graphs(graph):
        edit = Edit(each)
        while (best := max(_savings(edit, real), key=_worth, default=None)) is not None:
            if _worth(best) <= (0, 0):
                break
            edit.replace(best.root, *built(best.law.after, best.found, best.root.outputs[0]))
            applied[best.law.name] += 1
        if applied:
            edit.finish()
    return applied


def _worth(saving: Saving) -> tuple[int, int]:
    return saving.operations, saving.num_bytes


def _savings(edit: Edit, real: bool) -> Iterator[Saving]:
    """All that laws could save in a graph."""
    ranges = Ranges(edit)
    for node in list(edit.slot):
        for law in (law for law in LAWS if law.before[0] == node.op.name):
            for found in find(edit, node.outputs[0], law.before, Found({})):
                if _holds(law, found, node, ranges, real):
                    yield _saving(edit, law, found, node)


def _holds(law: Law, found: Found, node: Node, ranges: Ranges, real: bool) -> bool:
    """May the law be applied?"""
    dtype = node.outputs[0].dtype
    if not np.issubdtype(dtype, np.floating):
        return law.integers and np.issubdtype(dtype, np.integer)
    if law.floats or real:
        return True
    info = np.finfo(dtype)
    names = {name: ranges(value) for name, value in found.values.items()}
    count = max((v.size for v in found.values.values()), default=1) // max(node.outputs[0].size, 1)
    sides = ((law.before, False), (law.after, True))
    return all(
        bounded(term, names, count, float(info.max) / 2, alike=alike) is not None
        for term, alike in sides
    )


def _saving(edit: Edit, law: Law, found: Found, root: Node) -> Saving:
    """What a law saves at a place; nothing or less than that in most."""
    gone = list(_dead(edit, found.nodes, root))
    new = cost(law.after, found)
    size = root.outputs[0].dtype.itemsize
    num_bytes = sum(value.size for node in gone for value in node.outputs) - new.written
    return Saving(_operations(gone) - new.operations, num_bytes * size, law, found, root)


def _dead(edit: Edit, nodes: Iterable[Node], root: Node) -> Iterator[Node]:
    """Those of the nodes that nobody needs once the root is gone."""
    gone = {root}
    yield root
    for node in sorted(set(nodes) - gone, key=lambda node: -edit.slot[node]):
        value = node.outputs[0]
        if value not in edit.outputs and all(reader in gone for reader in edit.readers[value]):
            gone.add(node)
            yield node


def _operations(nodes: Iterable[Node]) -> int:
    """Of elements."""
    sizes = (max(v.size for v in (*n.inputs, *n.outputs)) for n in nodes if not is_moved(n))
    return sum(sizes)
