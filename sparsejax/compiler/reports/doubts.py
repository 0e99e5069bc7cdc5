"""What a compiled function is probably not meant to be, said at once with what to do."""

import re
from collections.abc import Sequence

from sparsejax.compiler.graph.graph import Graph, Node, Value
from sparsejax.compiler.nodes.control import graphs
from sparsejax.compiler.nodes.primitive import Primitive
from sparsejax.compiler.reports.layer_report import LayerReport
from sparsejax.compiler.reports.report import CompileReport
from sparsejax.patterns.stacked import array_of
from sparsejax.plans.plan import Plan

MAX_NAMED = 4
DRAWS = ("random_bits", "threefry2x32", "rng_bit_generator", "random_gamma")
SQUARES = ("square", "integer_pow", "mul")


def in_training(graph: Graph) -> list[str]:
    """Traces that a model in training mode leaves in the graph as it was traced."""
    found = []
    within = list(graphs(graph))
    if any(map(_normalises_the_batch, within)):
        found.append(
            "compile found means of the values and of their squares over the batch, as BatchNorm "
            "computes them in training: an image's result depends on the others; call the model "
            "for inference, with train=False (use_running_average=True, model.eval())."
        )
    if any(map(_draws_the_same, within)):
        found.append(
            "compile found random numbers from a key that is a constant, as dropout draws them in "
            "training: they are the same at each call; call the model for inference, with "
            "train=False (deterministic=True, model.eval()), or pass the key as an input."
        )
    return found


def _normalises_the_batch(graph: Graph) -> bool:
    """Are values and squares of them summed over the batch and all else but one axis?"""
    writer = {value: node for node in graph.nodes for value in node.outputs}
    sums = [node for node in graph.nodes if _name(node) == "reduce_sum" and _over_batch(node)]
    shapes: dict[tuple, set[bool]] = {}
    for node in sums:
        before = writer.get(node.inputs[0])
        squared = before is not None and _is_square(before)
        shapes.setdefault(node.inputs[0].shape, set()).add(squared)
    return any(kinds == {True, False} for kinds in shapes.values())


def _over_batch(node: Node) -> bool:
    assert isinstance(node.op, Primitive)
    shape, axes = node.inputs[0].shape, set(node.op.equation.params["axes"])
    return len(shape) in (2, 4) and 0 in axes and len(axes) == len(shape) - 1


def _is_square(node: Node) -> bool:
    if _name(node) == "mul":
        return node.inputs[0] is node.inputs[1]
    return _name(node) in SQUARES


def _draws_the_same(graph: Graph) -> bool:
    """Is anything random that no input decides about?"""
    depends: set[Value] = set(graph.inputs)
    for node in graph.nodes:
        if any(value in depends for value in node.inputs):
            depends.update(node.outputs)
        elif _name(node) in DRAWS:
            return True
    return False


def _name(node: Node) -> str:
    return node.op.name if isinstance(node.op, Primitive) else ""


def left_in_xla(graph: Graph, report: CompileReport, plan: Plan | None) -> list[str]:
    """What of the network does not run on the kernels, though it was meant to."""
    empty = any(0 in value.shape for value in (*graph.inputs, *graph.outputs))
    found = []
    if not (report.num_regions or report.handed_back or empty):
        layers = [layer for layer in report.layers if layer.kernel == "xla"]
        what = _grouped(layers) or "there is no layer, a product with weights that are known"
        found.append(f"compile leaves all of apply_fn in XLA: {what}; {_advice(graph, layers)}.")
    lost = _lost(report, plan) if plan is not None and not empty else {}
    if lost:
        named = "; ".join(f"{path} ({why})" for path, why in list(lost.items())[:MAX_NAMED])
        more = f" and {len(lost) - MAX_NAMED} more" if len(lost) > MAX_NAMED else ""
        found.append(
            f"compile leaves {len(lost)} of the {len(plan.leaves)} leaves of the plan without a "  # type: ignore[union-attr]
            f"sparse kernel: {named}{more}; their zeros save no time, so leave them out of the "
            "plan, or change what is named here."
        )
    return found


def _grouped(layers: Sequence[LayerReport]) -> str:
    """The layers with their reasons, those of one reason together."""
    groups: dict[str, list[LayerReport]] = {}
    for layer in layers:
        groups.setdefault(layer.reason, []).append(layer)
    words = []
    for reason, members in list(groups.items())[:MAX_NAMED]:
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        words.append(f"{members[0].path or 'a constant'}{more} ({members[0].kind}: {reason})")
    return ", ".join(words)


def _advice(graph: Graph, layers: Sequence[LayerReport]) -> str:
    if any(re.search(r"\b(bfloat16|float16|float64)\b", layer.reason) for layer in layers):
        return (
            "cast params and inputs to float32 and make the model with dtype=float32, for the "
            'kernels are of float32, or pass precision="float32" to compute halves in it'
        )
    if not layers:
        return "pass the weights in params, and the inputs behind them"
    return "report().layers has the reasons"


def _lost(report: CompileReport, plan: Plan) -> dict[str, str]:
    """The leaves of the plan that no kernel runs, and why."""
    rows: dict[str, list[LayerReport]] = {}
    for layer in report.layers:  # those of a scan as turns of a loop, path[1][2]
        path = layer.path.replace("][", ", ")
        for name in {path, array_of(path)}:
            rows.setdefault(name, []).append(layer)
    lost = {}
    for leaf in plan.leaves:
        own = rows.get(leaf.path, [])
        if not own:
            lost[leaf.path] = "no layer has these weights"
        elif all(layer.kernel == "xla" and not layer.handed_back for layer in own):
            lost[leaf.path] = f"{own[0].kind}: {own[0].reason}"
    return lost
