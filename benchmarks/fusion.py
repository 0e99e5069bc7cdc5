"""Operators and intermediate bytes of networks: unfused, by patterns, by DNNFusion, XLA and here.

    python -m benchmarks.fusion --json benchmarks/results/fusion.json --draw docs/plots/fusion.svg
    taskset -c 0 python -m benchmarks.fusion --times --json times.json      (a quarter of an hour)

The first, half a minute, also writes the page's table beside the JSON file.

Niu et al., "DNNFusion: Accelerating Deep Neural Networks Execution with Advanced Operator Fusion",
PLDI 2021, arXiv:2108.13342, counts operators of its own nets so; ours are those of
`experiments/models`, one input each, traced with constants folded. A fixed pattern is a convolution
or product with the constants added to and multiplied with its result, and one activation. The plan
stands twice: with no pair fused that its table leaves to a measurement, and with all of them;
`--times` adds that of measured pairs. XLA's operators are the instructions that its optimised
program runs on this CPU, `ours` the regions of `compile` and what it leaves in XLA. Intermediate
bytes are those of the values that one operator hands to another.

With `--times` each is run on one image or text: block after block, each under `jax.jit`, or the
whole by `jax.jit` and by `compile`, which times its layers first.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import as_markdown, publish
from experiments.models.attention import Attention
from experiments.models.c3d import C3DLinen
from experiments.models.efficientnet_b0 import EfficientNetB0Linen
from experiments.models.minilm import MiniLM
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from experiments.models.mobilenet_v2 import MobileNetV2Linen
from experiments.models.resnet import STAGES_50, ResNetLinen
from experiments.models.transformers import GPT2Linen, ViTLinen
from experiments.models.unet import UNetLinen
from experiments.models.vgg import VGG16Linen
from experiments.runs.timing import warm_ms
from sparsejax.audit.programs import read_program
from sparsejax.compiler.graph.graph import Graph, Node, Region
from sparsejax.compiler.graph.interpret import interpreter
from sparsejax.compiler.graph.op import MappingType
from sparsejax.compiler.passes.laws import apply_laws
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace
from sparsejax.compiler.regions.fusion import Fusion, fuse, fusion_of
from sparsejax.compiler.regions.profile import Profile, run_blocks
from sparsejax.compiler.regions.split import split
from sparsejax.text import table

IMAGE, CLIP = (1, 64, 64, 3), (1, 16, 32, 32, 3)
SMALL = {"layers": 12, "features": 96, "heads": 4}
ULSAM = [Attention(block, groups=4, replaces=True) for block in (7, 8)]
TURNS = 5


class Net(NamedTuple):
    """A network of the table: its module, the shapes of its inputs, and is it a transformer?"""

    module: nn.Module
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    transformer: bool = False


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


IDS = jax.ShapeDtypeStruct((1, 64), np.int32)
NETS = {
    "MobileNet-v1": Net(MobileNetV1Linen(), (floats(*IMAGE),)),
    "MobileNet-v1, ULSAM": Net(MobileNetV1Linen(attention=ULSAM), (floats(*IMAGE),)),
    "MobileNet-v2": Net(MobileNetV2Linen(), (floats(*IMAGE),)),
    "EfficientNet-B0": Net(EfficientNetB0Linen(), (floats(*IMAGE),)),
    "ResNet-50": Net(ResNetLinen(stages=STAGES_50, width=0.25), (floats(*IMAGE),)),
    "VGG-16": Net(VGG16Linen(width=0.25), (floats(*IMAGE),)),
    "U-Net": Net(UNetLinen(channels=16), (floats(*IMAGE),)),
    "C3D": Net(C3DLinen(width=0.25), (floats(*CLIP),)),
    "BERT-like": Net(MiniLM(vocabulary=1000, hidden=384, **SMALL), (IDS, floats(1, 64)), True),
    "GPT-2-like": Net(GPT2Linen(vocabulary=1000, **SMALL), (IDS,), True),
    "ViT": Net(ViTLinen(patch=8, **SMALL), (floats(*IMAGE),), True),
}


def traced(net: Net) -> tuple[Graph, Callable, Any]:
    """The graph of a network of random weights, its function, and these."""
    module = net.module
    shapes = jax.eval_shape(module.init, jax.random.key(0), *net.inputs)
    rng = np.random.default_rng(0)
    draw = lambda s: (
        rng.uniform(0.5, 1, s.shape).astype(s.dtype) / math.sqrt(max(s.shape[:-1] or (1,)))
    )
    variables = jax.tree.map(draw, shapes)
    return trace(module.apply, variables, net.inputs)[0], module.apply, variables


def is_layer(node: Node) -> bool:
    return node.op.name in ("conv_general_dilated", "dot_general")


def by_patterns(graph: Graph) -> Fusion:
    """Layers with the constants that meet their result, and one activation behind."""
    users, outputs = graph.users(), set(graph.outputs)
    taken: set[Node] = set()
    blocks: list[list[Node]] = []
    for node in graph.nodes:
        if node in taken:
            continue
        block = [node]
        while is_layer(node) and (after := _after(block, users, outputs)) is not None:
            block.append(after)
            if after.op.name not in AFFINE:
                break
        taken.update(block)
        blocks.append(block)
    return fusion_of(graph, [(block, MappingType.MANY_TO_MANY) for block in blocks])


AFFINE = ("add", "sub", "mul", "div")
ACTIVATIONS = ("max", "min", "clamp", "tanh", "logistic", "custom_jvp_call")


def _after(block: Sequence[Node], users: dict, outputs: set) -> Node | None:
    """What a pattern takes in behind its last node."""
    value = block[-1].outputs[0]
    readers = users.get(value, [])
    if len(readers) != 1 or value in outputs or readers[0].op.name not in AFFINE + ACTIVATIONS:
        return None
    others = [v for v in readers[0].inputs if v is not value]
    return readers[0] if all(v.constant is not None for v in others) else None


def ours(graph: Graph) -> Fusion:
    """The regions of `compile` and the nodes that stay in XLA; the graph is rewritten."""
    steps = split(rewrite(graph))
    blocks = [step.nodes if isinstance(step, Region) else [step] for step in steps]
    return fusion_of(graph, [(block, MappingType.OPAQUE) for block in blocks])


def in_xla(graph: Graph, inputs: Sequence[jax.ShapeDtypeStruct]) -> tuple[int, int]:
    """Instructions of XLA's optimised program, and the bytes that they hand on."""
    run = interpreter(graph.nodes, graph.inputs, graph.outputs)
    program = read_program(jax.jit(run).lower(*inputs).compile().as_text())
    return program.kernels, program.handed_bytes


def plans(net: Net, *, measured: bool = False) -> tuple[Graph, dict[str, Fusion]]:
    """The graph that laws were applied to, and the ways to run it block after block."""
    graph = traced(net)[0]
    alone = fusion_of(graph, [([node], node.op.mapping(node)) for node in graph.nodes])
    found = {"none": alone, "patterns": by_patterns(graph)}
    found |= {"plan": fuse(graph), "plan, all": fuse(graph, profitable=lambda nodes: True)}
    if measured:
        found["plan, measured"] = fuse(graph, profitable=Profile(graph))
    return graph, found


def counts(net: Net, *, measured: bool = False) -> dict[str, Any]:
    """Operators and megabytes of each way, and what laws would save."""
    graph, found = plans(net, measured=measured)
    rows = {name: (plan.num_after, plan.bytes_after) for name, plan in found.items()}
    rows["XLA"] = in_xla(graph, net.inputs)
    apart = ours(traced(net)[0])
    rows["ours"] = apart.num_after, apart.bytes_after
    exact, real = (dict(apply_laws(traced(net)[0], real=real)) for real in (False, True))
    ways = {name: {"operators": n, "MB": round(size / 1e6, 3)} for name, (n, size) in rows.items()}
    return {"transformer": net.transformer, "ways": ways, "laws": exact, "laws with leave": real}


def times(net: Net) -> dict[str, float]:
    """Milliseconds of each way."""
    graph, found = plans(net, measured=True)
    _, apply, variables = traced(net)
    inputs = [jnp.ones(s.shape, s.dtype) for s in net.inputs]
    calls = {
        name: run_blocks(graph, [block.nodes for block in plan.blocks], *inputs)
        for name, plan in found.items()
    }
    whole = jax.jit(interpreter(graph.nodes, graph.inputs, graph.outputs))
    fast = jax.jit(sj.compile(apply, variables, *net.inputs))
    calls |= {"XLA": lambda: whole(*inputs), "ours": lambda: fast(*inputs)}
    return warm_ms(calls, TURNS)


def trends(nets: dict[str, Any]) -> dict[str, bool]:
    """What the paper says, and whether it holds: the plan fuses more, and most in transformers."""
    pairs = {name: _operators(net, "patterns", "plan") for name, net in nets.items()}
    gains = {name: patterns / plan for name, (patterns, plan) in pairs.items()}
    least = min((gains[name] for name, net in nets.items() if net["transformer"]), default=0)
    others = max((gains[name] for name, net in nets.items() if not net["transformer"]), default=0)
    return {
        "the plan never fuses less than patterns": min(gains.values()) >= 1,
        "it fuses more in all": min(gains.values()) > 1,
        "most in each transformer": least > others,
    }


def _operators(net: dict[str, Any], *ways: str) -> list[int]:
    return [net["ways"][way]["operators"] for way in ways]


def markdown(nets: dict[str, Any]) -> str:
    """The tables of the page: operators and megabytes, and milliseconds where measured."""
    counted = {
        name: {way: f"{n['operators']} ({n['MB']:.2f} MB)" for way, n in net["ways"].items()}
        for name, net in nets.items()
    }
    timed = {
        name: {way: f"{ms:.1f}" for way, ms in net["ms"].items()}
        for name, net in nets.items()
        if "ms" in net
    }
    tables = {"operators": counted} | ({"milliseconds": timed} if timed else {})
    return "\n".join(
        as_markdown(
            [title, *next(iter(cells.values()))],
            ([name, *row.values()] for name, row in cells.items()),
        )
        + "\n"
        for title, cells in tables.items()
    )


def draw(nets: dict[str, Any], file: str) -> None:
    """A bar for each way, of the operators that are left of those unfused."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "fusion", "svg.fonttype": "none"})
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    ways = [way for way in next(iter(nets.values()))["ways"] if way != "none"]
    width = 0.8 / len(ways)
    for i, way in enumerate(ways):
        shares = [np.divide(*_operators(net, way, "none")) for net in nets.values()]
        places = np.arange(len(nets)) + (i - (len(ways) - 1) / 2) * width
        axes.bar(places, 100 * np.array(shares), width, label=way)
    axes.set_xticks(range(len(nets)), nets, rotation=30, ha="right")
    axes.set_ylabel("operators left, %")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(ncols=len(ways), fontsize="small")
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--draw", help="the picture's file")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--nets", nargs="*", choices=NETS, default=list(NETS))
    arguments = parser.parse_args()
    nets: dict[str, Any] = {}
    for name in arguments.nets:
        nets[name] = counts(NETS[name], measured=arguments.times)
        if arguments.times:
            nets[name]["ms"] = times(NETS[name])
        rows = [(way, *map(str, row.values())) for way, row in nets[name]["ways"].items()]
        print(table(name, ("", "operators", "MB"), rows), flush=True)
    publish({"nets": nets, "trends": trends(nets)}, arguments.json)
    if arguments.json:
        Path(arguments.json).with_suffix(".md").write_text(markdown(nets))
    if arguments.draw:
        draw(nets, arguments.draw)


if __name__ == "__main__":
    main()
