"""`compile`: the entry, and the function it returns."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sparsejax.compile.fuse_old import fuse
from sparsejax.compile.graph_old import positions
from sparsejax.compile.pack import Packer
from sparsejax.compile.program import program
from sparsejax.compile.report import CompileReport, report
from sparsejax.compile.select import select
from sparsejax.compile.trace_old import trace


class _Program(NamedTuple):
    """What was made for one set of input shapes."""

    run: Callable
    output_tree: Any
    report: CompileReport


class CompiledFunction:
    """A function of the inputs alone that runs on packed weights; made by `sj.compile`.

    It is an ordinary JAX function: `jax.jit`, `jax.vmap` and `jax.grad` (for the inputs) work.
    Other shapes are traced again, as in `jax.jit`, and share the packed weights. Any number of
    threads may call it.
    """

    def __init__(self, apply_fn: Callable, params: Any):
        self._apply_fn = apply_fn
        self._params = params
        self._packer = Packer()
        self._programs: dict[Any, _Program] = {}
        self._example_key: Any = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        """What apply_fn(params, *args) returns."""
        leaves, treedef = jax.tree.flatten(args)
        made = self._program(leaves, treedef)
        return jax.tree.unflatten(made.output_tree, made.run(*leaves))

    def report(self) -> CompileReport:
        """What was chosen for each layer, on the shapes that compile was given."""
        return self._programs[self._example_key].report

    def _program(self, leaves: list, treedef: Any) -> _Program:
        types = tuple(map(_type_of, leaves))
        key = (treedef, tuple((t.shape, t.dtype, t.weak_type) for t in types))
        with self._lock:
            if key not in self._programs:
                self._programs[key] = self._make(jax.tree.unflatten(treedef, types))
                self._example_key = self._example_key or key
            return self._programs[key]

    def _make(self, args: tuple) -> _Program:
        graph, output_tree = trace(self._apply_fn, self._params, args)
        fuse(graph)
        choices = {n: select(n.layer, positions(n)) for n in graph.nodes if n.layer}
        run = jax.jit(program(graph, choices, self._packer))
        return _Program(run, output_tree, report(graph, choices))


def compile(apply_fn: Callable, params: Any, *example: Any) -> CompiledFunction:
    """The function x -> apply_fn(params, x) on packed sparse weights.

    The function is traced; constants, batch norm, bias and relu or relu6 are drawn into 1x1
    convolutions, depthwise convolutions and linear layers, and each layer runs with the kernel
    that its zeros make fastest: `sj.spmm` on CSR or on blocks of 2, 4 or 8 outputs,
    `sj.depthwise_conv2d`, or XLA where dense is faster. All else stays in XLA, so that the result
    is right for any model.

    Args:
        apply_fn: any function `apply_fn(params, *inputs)` that jax.jit could trace, such as
            `functools.partial(model.apply, train=False)`.
        params: its weights, any pytree; they become constants.
        example: inputs, or their `jax.ShapeDtypeStruct`. Other shapes are compiled when they come.

    Raises:
        TypeError: when apply_fn cannot be called, an example is no array, or a weight is traced.

    Example:
        >>> fast = sj.compile(model.apply, params, x)
        >>> print(fast.report())
        >>> logits = jax.jit(fast)(x)
    """
    if not callable(apply_fn):
        raise TypeError(
            f"compile needs a function of params and inputs, got {type(apply_fn).__name__}; "
            "pass model.apply, say."
        )
    compiled = CompiledFunction(apply_fn, params)
    leaves, treedef = jax.tree.flatten(example)
    compiled._program(leaves, treedef)
    return compiled


def _type_of(leaf: Any) -> jax.ShapeDtypeStruct:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    try:
        aval = jax.typeof(leaf)
    except TypeError as error:
        raise TypeError(
            f"compile needs arrays as inputs, got {type(leaf).__name__}; "
            "bind other arguments with functools.partial."
        ) from error
    weak = bool(getattr(aval, "weak_type", False))
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=weak)
