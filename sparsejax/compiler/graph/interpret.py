"""Nodes in plain JAX: the oracle, the way on GPU and TPU, and the gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.compiler.graph.graph import Node, Value

MOST_IN_PROGRAM = 1 << 24  # bytes of constants: 0.1 s to compile


def interpreter(
    nodes: Sequence[Node], inputs: Sequence[Value], outputs: Sequence[Value]
) -> Callable[..., list[jax.Array]]:
    """The function of the arrays for `inputs` that returns those for `outputs`."""

    def run(*arrays: jax.Array) -> list[jax.Array]:
        env: dict[Value, Any] = dict(zip(inputs, arrays, strict=True))
        for node in nodes:
            read = (env[v] if v.constant is None else v.constant for v in node.inputs)
            env.update(zip(node.outputs, node.op.evaluate(*read), strict=True))
        return [env[v] if v.constant is None else jnp.asarray(v.constant) for v in outputs]

    return run


def with_weights(function: Callable, inputs: Sequence[jax.Array]) -> Callable[[], Any]:
    """The jitted function of these inputs; many constants are handed in as a user's params are.

    As constants of the program they would be copied into it, and take long to compile; XLA computes
    what depends on few of them beforehand, as it does where the function is used.
    """
    closed = jax.make_jaxpr(function)(*inputs)
    few = sum(array.nbytes for array in closed.consts) <= MOST_IN_PROGRAM
    handed = [] if few else [jax.device_put(a) for a in closed.consts]  # in memory of NumPy's view

    def program(handed: list[jax.Array], inputs: Sequence[jax.Array]) -> list[Any]:
        return jax.core.eval_jaxpr(closed.jaxpr, closed.consts if few else handed, *inputs)

    run = jax.jit(program)
    return lambda: jax.block_until_ready(run(handed, inputs))
