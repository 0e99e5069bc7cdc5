"""Regions as programs."""

from collections.abc import Mapping
from typing import Any

from sparsejax.compiler.engine.program import INPUT, NONE, OUTPUT, Builder, Program, Step
from sparsejax.compiler.graph.graph import Node, Region
from sparsejax.patterns.layout import Layout


def lower(region: Region, layouts: Mapping[Node, Layout]) -> Program:
    """The program of a region; a product without a layout is stored dense."""
    builder = Builder(region, layouts)
    drop, last = int(not region.rows), region.rows or region.channels_last
    for i, value in enumerate(region.inputs):
        rank, output = len(value.shape) - drop, builder.new(value)
        builder.steps.append(Step(INPUT, output, argument=i, rank=rank, channels_last=last))
    for node in region.nodes:
        op: Any = node.op  # a region holds only what can be lowered
        op.lower(node, builder)
    for i, value in enumerate(region.outputs):
        rank, inputs = len(value.shape) - drop, (builder.ids[value],)
        builder.steps.append(Step(OUTPUT, NONE, inputs, argument=i, rank=rank, channels_last=last))
    return builder.finish()


def with_rows(program: Program, num_rows: int) -> Program:
    """The program of a region of rows for another number of them: the height of all its values."""
    words = program.words.copy()
    words[2 : 2 + 3 * words[1]].reshape(-1, 3)[:, 1] = num_rows
    return program._replace(words=words)
