"""What the library has to know of flax: the only module that touches it."""

import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

import jax

_SAVED: set[type] = set()


def is_module(node: Any) -> bool:
    """Is it an object of NNX that a function may change in place: a Module, an Optimizer, Rngs?"""
    return any(
        base.__module__.startswith("flax.nnx") and base.__name__ in ("Pytree", "Object")
        for base in type(node).__mro__
    )


def unboxed(tree: Any) -> Any:
    """The tree with what NNX variables hold in their place."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return tree
    is_box = lambda node: isinstance(node, nnx.Variable)
    if not any(map(is_box, jax.tree.leaves(tree, is_leaf=is_box))):
        return tree
    open_ = lambda node: node.get_value() if is_box(node) else node
    return jax.tree.map(open_, tree, is_leaf=is_box)


def with_weights(model: Any, paths: Container[str], f: Callable[[Any], Any]) -> Any:
    """The NNX module with `f` of the variables at these paths in their place.

    It shares all other variables with `model`, so that what a call writes to them stays: batch
    statistics, counts of random numbers.
    """
    from flax import nnx

    ours = lambda path, _: "/".join(map(str, path)) in paths
    parts: Any = nnx.split(model, ours, ...)
    graph, weights, rest = parts
    return nnx.merge(graph, f(weights), rest)


def let_flax_save(kind: type, fields: Sequence[str]) -> None:
    """Teaches `flax.serialization` these fields of a dataclass, if flax is there by now."""
    flax = sys.modules.get("flax.serialization")
    if flax is None or kind in _SAVED:
        return

    def save(node: Any) -> dict[str, Any]:
        return {name: flax.to_state_dict(getattr(node, name)) for name in fields}

    def restore(node: Any, saved: Any) -> Any:
        own = {name: getattr(node, name) for name in fields}
        return replace(node, **{k: flax.from_state_dict(v, saved[k], k) for k, v in own.items()})

    flax.register_serialization_state(kind, save, restore)
    _SAVED.add(kind)


def weights_of(model: Any) -> Any:
    """The state of an NNX module: a tree of its variables."""
    from flax import nnx

    return nnx.state(model)


def holds_module(tree: Any) -> bool:
    """True if the tree holds an NNX module, whose state the function that gets it may change."""
    return any(map(is_module, jax.tree.leaves(tree, is_leaf=is_module)))


def functional(fn: Callable, args: tuple, kwargs: dict) -> tuple[Callable, Any, Callable]:
    """`fn` on these NNX arguments as a pure function of their state.

    Returns `(pure, inputs, write_back)`: `pure(*inputs) -> (output, new_state)`, and
    `write_back(new_state)` updates the modules the caller holds, shared references included.

    Raises:
        TypeError: where `fn` changes which variables the modules have, or returns a module.
    """
    from flax import nnx

    leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=is_module)
    modules = tuple(leaf for leaf in leaves if is_module(leaf))
    others = [leaf for leaf in leaves if not is_module(leaf)]
    graph, state = nnx.split(modules)

    def pure(state: Any, others: list) -> tuple[Any, Any]:
        inner = nnx.merge(graph, state, copy=True)
        inner_modules, inner_others = iter(inner), iter(others)
        merged = [next(inner_modules if is_module(leaf) else inner_others) for leaf in leaves]
        inner_args, inner_kwargs = jax.tree.unflatten(treedef, merged)
        output = fn(*inner_args, **inner_kwargs)
        new_state = nnx.state(inner)
        before, after = (jax.tree.structure(tree) for tree in (state, new_state))
        if before != after:  # type: ignore[operator]
            raise TypeError(
                "accelerate needs a function that keeps the set of variables of its nnx.Module "
                "arguments, but this one added or removed some; create them before the call."
            )
        if holds_module(output):
            raise TypeError(
                "accelerate needs a function that returns arrays, but this one returned an "
                "nnx.Module; return nnx.state(module) instead."
            )
        return output, new_state

    return pure, (state, others), lambda new_state: nnx.update(modules, new_state)
