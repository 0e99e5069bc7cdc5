"""Where a kernel's operands and results lie on a mesh: by the names of their axes."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

AxisNames = tuple[str, ...]
Cuts = dict[str, tuple[str, ...]]  # axis -> the mesh axes over which it is cut


class Names(NamedTuple):
    """The names of the axes of every operand and every result; equal names have equal sizes."""

    operands: tuple[AxisNames, ...]
    results: tuple[AxisNames, ...]


def may_be_cut(name: str) -> bool:
    """May devices share the axis out? Its name then begins with a capital."""
    return name[0].isupper()


def cuts_of(names: Names, shapes: Sequence[Sequence[int]], specs: Iterable[Any], mesh: Any) -> Cuts:
    """Over which mesh axes each axis is cut: as in the operands, the last of them (x) first.

    An axis that is cut into unequal parts is not cut: a kernel would sum up the padding.
    """
    cuts: Cuts = {}
    taken: set[str] = set()
    for axes, shape, spec in reversed(list(zip(names.operands, shapes, specs, strict=True))):
        for name, size, part in zip(axes, shape, spec, strict=False):
            over = (part,) if isinstance(part, str) else tuple(part or ())
            fits = size % math.prod(mesh.shape[axis] for axis in over) == 0
            if over and fits and may_be_cut(name) and name not in cuts and not taken & {*over}:
                cuts[name] = over
                taken.update(over)
    return cuts


def _spec(axes: AxisNames, shape: Sequence[int], cuts: Cuts) -> PartitionSpec:
    sized = zip(axes, shape, strict=True)
    return PartitionSpec(*(cuts.get(name) if size != 1 else None for name, size in sized))


def _explicit(operands: Sequence[Any], names: Names) -> tuple[Any, Cuts]:
    """The mesh of operands whose types say how they are sharded, and the cuts."""
    types = [jax.typeof(operand) if isinstance(operand, Array) else operand for operand in operands]
    meshes = [t.sharding.mesh for t in types if not t.sharding.mesh.empty]
    mesh = meshes[-1] if meshes else types[-1].sharding.mesh
    specs = [t.sharding.spec for t in types]
    return mesh, cuts_of(names, [t.shape for t in types], specs, mesh)


def resharded(names: Names, operands: Sequence[Array]) -> list[Array]:
    """The operands, cut along their common axes alone where their types say how they are cut."""
    mesh, cuts = _explicit(operands, names)
    placed = []
    for axes, operand in zip(names.operands, operands, strict=True):
        spec = _spec(axes, operand.shape, cuts)
        own = jax.typeof(operand).sharding.spec
        same = all(_tuple(a) == _tuple(b) for a, b in zip(own, spec, strict=True))
        wanted = NamedSharding(mesh, spec)
        placed.append(operand if same else jax.sharding.reshard(operand, wanted))
    return placed


def _tuple(part: Any) -> tuple[str, ...]:
    return (part,) if isinstance(part, str) else tuple(part or ())


def result_shardings(names: Names, operands: Sequence[Any]) -> list[NamedSharding]:
    """The shardings of the results' types, from those of the operands' types."""
    mesh, cuts = _explicit(operands, names)
    return [
        NamedSharding(mesh, PartitionSpec(*(cuts.get(name) for name in axes)))
        for axes in names.results
    ]


def partitioned(
    function: Callable[..., list[Array]], names: Names, operands: Sequence[Any]
) -> Callable[..., list[Array]]:
    """The function, run by each device on its own part once XLA has placed the operands.

    Args:
        function: of the operands of one device, all of it in their shapes.
        names: of the axes.
        operands: shapes and dtypes of them as wholes.
    """
    shapes = [operand.shape for operand in operands]
    # XLA's rule of propagation knows no empty arrays: they are made where they are needed.
    full = [i for i, shape in enumerate(shapes) if 0 not in shape]
    own = Names(tuple(names.operands[i] for i in full), names.results)
    own_shapes = [shapes[i] for i in full]

    def on_device(*given: Array) -> list[Array]:
        rest = dict(zip(full, given, strict=True))
        sizes = (zip(*pair, strict=True) for pair in zip(names.operands, shapes, strict=True))
        made = [[1 if may_be_cut(name) else size for name, size in pairs] for pairs in sizes]
        empty = lambda i: jnp.zeros(made[i], operands[i].dtype)
        return function(*(rest[i] if i in rest else empty(i) for i in range(len(shapes))))

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        cuts = cuts_of(own, own_shapes, [a.sharding.spec for a in arguments], mesh)

        def summed(*given: Array) -> list[Array]:
            outputs = on_device(*given)
            return [
                jax.lax.psum(output, over) if (over := _missing(cuts, axes)) else output
                for output, axes in zip(outputs, names.results, strict=True)
            ]

        place = lambda axes, shape: NamedSharding(mesh, _spec(axes, shape, cuts))
        out = [place(a, r.shape) for a, r in zip(names.results, results, strict=True)]
        into = [place(a, shape) for a, shape in zip(own.operands, own_shapes, strict=True)]
        return mesh, summed, out, tuple(into)

    whole = custom_partitioning(on_device)
    rule, fixed = _rule(own, own_shapes)
    whole.def_partition(partition, sharding_rule=rule, need_replication_factors=fixed)
    return lambda *arrays: whole(*(arrays[i] for i in full))


@cache
def needs_devices() -> Any:
    """A jaxpr to hang on an equation that is partitioned: JAX then lowers it for known devices."""
    identity = custom_partitioning(lambda x: x)
    identity.def_partition(None, sharding_rule="n -> n")
    return jax.make_jaxpr(identity)(jax.ShapeDtypeStruct((1,), jnp.float32))


def _missing(cuts: Cuts, axes: AxisNames) -> tuple[str, ...]:
    """The mesh axes over which something is cut that the result has no axis for."""
    return tuple(axis for name, over in cuts.items() if name not in axes for axis in over)


def _rule(names: Names, shapes: Sequence[Sequence[int]]) -> tuple[str, tuple[str, ...]]:
    """Shardy's rule, and the axes in it that no device may cut, in their order."""
    fixed: list[str] = []

    def factor(name: str, size: int) -> str:
        if may_be_cut(name) and size != 1:
            return name
        fixed.append(f"f{len(fixed)}")
        return fixed[-1]

    def side(all_axes: Iterable[AxisNames], sizes: Iterable[Sequence[int]]) -> str:
        pairs = (zip(axes, shape, strict=True) for axes, shape in zip(all_axes, sizes, strict=True))
        return ", ".join(" ".join(factor(*pair) for pair in pairs_of) for pairs_of in pairs)

    # Shardy takes a factor's size from its operands; an axis of 1 that is broadcast must not
    # lend its size to the name it shares.
    known: dict[str, int] = {}
    for axes, shape in zip(names.operands, shapes, strict=True):
        for name, size in zip(axes, shape, strict=True):
            known[name] = max(size, known.get(name, 1))
    results = [[known[name] if may_be_cut(name) else 1 for name in axes] for axes in names.results]
    rule = f"{side(names.operands, shapes)} -> {side(names.results, results)}"
    return rule, tuple(fixed)
