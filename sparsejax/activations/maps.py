"""The maps inside of any function: those that the user tapped, and those behind its ReLUs."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from sparsejax.doors import FUNCTION, checked
from sparsejax.jaxprs import body_of, run_tapped
from sparsejax.jaxprs.calls import CUSTOM, functions_of
from sparsejax.jaxprs.read import split

_MARK = "activation map "


class _Found(NamedTuple):
    """An equation whose output is a map: those around it and itself, its name, turns of loops."""

    trail: tuple[int, ...]
    name: str
    turns: tuple[int, ...]


def tap(x: Array, name: str) -> Array:
    """x itself, a map of this name for `with_maps`; anywhere else it does nothing.

    Example:
      >>> sj.activations.tap(jax.nn.relu(x), "first").shape
      (3, 8)
    """
    return checkpoint_name(x, _MARK + name)


@checked(apply_fn=FUNCTION)
def with_maps(
    apply_fn: Callable[..., Any], *, functions: Sequence[str] = ("relu", "relu6")
) -> Callable[..., tuple[Any, dict[str, Array]]]:
    """`apply_fn` returning (output, maps), with its activation maps by name in the order they run.

    Where there is a `tap`, the maps are the tapped ones. Where there is none, they are the outputs
    of the functions of these names, and are called "relu/0", "relu/1". The turns of a scan are maps
    of their own, "relu/0/0". It can be traced: in `jax.jit` and `jax.grad` the maps are values like
    any other.

    What is not found: a ReLU written out, as jnp.maximum(x, 0), has no name; tap it. What cannot be
    had is a map inside of a while loop, a branch, a `shard_map`, or a function with derivatives of
    its own: that is an error. Remat around a map is undone. An NNX module goes in as a function of
    its state, by nnx.split and nnx.merge.

    Args:
      apply_fn: any function of trees of arrays; other leaves are as in Equinox modules.
      functions: the names of jitted functions whose outputs are maps.

    Raises:
      ValueError: a map is where it cannot be had, or there is none.

    Example:
      >>> net = lambda w, x: jax.nn.relu(x @ w).sum()
      >>> output, maps = sj.activations.with_maps(net)(weights, x)
      >>> {name: own.shape for name, own in maps.items()}
      {'relu/0': (3, 4)}
    """

    @functools.wraps(apply_fn)
    def run(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, Array]]:
        arrays, merged = split((args, kwargs), lambda leaf: hasattr(leaf, "shape"))

        def call(*leaves: Any) -> Any:
            own_args, own_kwargs = merged(leaves)
            return apply_fn(*own_args, **own_kwargs)

        closed, shape = jax.make_jaxpr(call, return_shape=True)(*arrays)
        tapped = list(_find(closed.jaxpr, (), (), _is_tap))
        is_call = functools.partial(_is_call, functions)
        found = tapped or list(_find(closed.jaxpr, (), (), is_call))
        if not found:
            raise ValueError(
                f"with_maps found no tap and no call of {', '.join(functions)}; "
                "tap the maps: sj.activations.tap(x, name)."
            )
        taps = {(own.trail, 0): (True,) * len(own.turns) for own in found}
        outputs, maps = run_tapped(closed, arrays, taps, _output)
        output = jax.tree.unflatten(jax.tree.structure(shape), outputs)
        return output, _named(found, maps, numbered=not tapped)

    return run


def _is_tap(equation: Any) -> str | None:
    name = equation.params.get("name")
    if equation.primitive.name == "name" and name.startswith(_MARK):
        return name.removeprefix(_MARK)
    return None


def _is_call(functions: Sequence[str], equation: Any) -> str | None:
    body, name = body_of(equation), equation.params.get("name")
    if body is not None and equation.primitive.name in CUSTOM and len(body.jaxpr.eqns) == 1:
        name = body.jaxpr.eqns[0].params.get("name")  # of jax.nn.relu, a jitted function inside
    return name if body is not None and name in functions else None


def _find(
    jaxpr: Any, trail: tuple[int, ...], turns: tuple[int, ...], name_of: Callable
) -> Iterator[_Found]:
    """The maps of a jaxpr in order."""
    for equation in jaxpr.eqns:
        own = (*trail, id(equation))
        if (name := name_of(equation)) is not None:
            yield _Found(own, name, turns)
            continue
        kind = equation.primitive.name
        length = (equation.params["length"],) if kind == "scan" else ()
        opened = kind == "scan" or (body_of(equation) is not None and kind not in CUSTOM)
        for inner in functions_of(equation):
            inside = list(_find(inner, own, turns + length, name_of))
            if inside and not opened:
                raise ValueError(
                    f"with_maps cannot take the map {inside[0].name!r} out of `{kind}`; "
                    "tap what comes out of it, or call with_maps on the function inside."
                )
            yield from inside


def _output(equation: Any, side: int, inputs: Sequence[Any]) -> Any:
    """What the equation puts out, with the derivative that it has."""
    params = equation.primitive.get_bind_params(equation.params)
    outputs = equation.primitive.bind(*inputs, **params)
    return outputs[0] if equation.primitive.multiple_results else outputs


def _named(found: Sequence[_Found], maps: dict[Any, Any], *, numbered: bool) -> dict[str, Array]:
    """The maps by their names, equal ones numbered, and each turn of a loop by itself."""
    several = Counter(own.name for own in found)
    seen: Counter[str] = Counter()
    named: dict[str, Array] = {}
    for own in found:
        alone = several[own.name] == 1 and not numbered
        name = own.name if alone else f"{own.name}/{seen[own.name]}"
        seen[own.name] += 1
        named |= _by_turns(name, maps[own.trail, 0], own.turns)
    return named


def _by_turns(name: str, stacked: Array, turns: tuple[int, ...]) -> dict[str, Array]:
    if not turns:
        return {name: stacked}
    named: dict[str, Array] = {}
    for turn in range(turns[0]):
        named |= _by_turns(f"{name}/{turn}", stacked[turn], turns[1:])
    return named
