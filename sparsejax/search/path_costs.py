"""What each path of each edge takes: measured here or modelled, and differentiable in alphas."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sparsejax.compiler.layouts.times import machine
from sparsejax.search.gates import Gate

CALLS = 30  # of each path, the fastest of which counts: what other work takes is not the path's
Alphas = Sequence[Float[Array, " paths"]]


@dataclass(frozen=True)
class PathCosts:
    """Milliseconds, or another cost, of each path of each edge, and of what does not change.

    Attributes:
      edges: of each edge the costs of its paths.
      fixed: of everything else.
      source: where the numbers are from, "measured on ..." or "modelled by ...": printed with them.
    """

    edges: tuple[tuple[float, ...], ...]
    fixed: float
    source: str

    def expected(self, alphas: Alphas, gates: Sequence[Gate] | None = None) -> Float[Array, ""]:
        """fixed + the sum over edges of softmax(alphas) . costs, with a gradient for alphas.

        Args:
          alphas: of each edge.
          gates: where given, paths that are no candidates count as never taken.

        Raises:
          ValueError: alphas of other sizes.

        Example:
          >>> costs = sj.search.PathCosts(((1.0, 3.0),), 0.5, "modelled by hand")
          >>> costs.expected([jnp.zeros(2)]).item()
          2.5

        Reference: Cai et al., ProxylessNAS, arXiv 1812.00332, equation 5.
        """
        if [len(own) for own in self.edges] != [own.shape[0] for own in alphas]:
            raise ValueError(
                "PathCosts.expected needs an alpha for each path, got "
                f"{[own.shape[0] for own in alphas]} for {[len(own) for own in self.edges]}."
            )
        total = jnp.asarray(self.fixed, alphas[0].dtype)
        for edge, (own, costs) in enumerate(zip(alphas, self.edges, strict=True)):
            which = slice(None) if gates is None else gates[edge].candidates
            chances = jax.nn.softmax(own[which])
            total += jnp.vdot(chances, jnp.asarray(costs, own.dtype)[which])
        return total

    def of(self, paths: Sequence[int | Int[Array, ""]]) -> Any:
        """fixed + the costs of one path of each edge; the numbers of the paths may be traced."""
        pairs = zip(self.edges, paths, strict=True)
        return self.fixed + sum(jnp.asarray(own)[path] for own, path in pairs)

    @staticmethod
    def measure(edges: Sequence[Sequence[Callable[[], Any]]], *, fixed: float = 0.0) -> "PathCosts":
        """The milliseconds of each path on this machine: the fastest of 30 calls, taken in turns.

        Args:
          edges: of each edge, for each path a function without arguments that runs it, compiled as
            it will run: `lambda: jax.jit(path)(params, x)` or one of `sj.compile`.
          fixed: milliseconds of everything else.
        """
        costs = tuple(tuple(_times(calls)) for calls in edges)
        return PathCosts(costs, fixed, f"measured on {machine()}")


def _times(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """The fewest milliseconds of each after a first call, taken in turns."""
    for call in calls:
        jax.block_until_ready(call())
    seconds = [math.inf] * len(calls)
    for _ in range(CALLS):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[number] = min(seconds[number], time.perf_counter() - start)
    return [1e3 * own for own in seconds]
