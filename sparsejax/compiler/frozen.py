"""Weights and functions as they were when compile saw them, whatever becomes of them later."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from sparsejax.tree import leaves_with_paths


def frozen(params: Any) -> Any:
    """The params with arrays that no loop changes in place or gives away.

    NumPy's are copied, unless they are read-only. The memory of JAX's own on a CPU is shared:
    nothing writes to it, and it stays while a view of it does, though the array be donated or
    deleted.
    """
    with jax.ensure_compile_time_eval():  # inside jit, too
        return jax.tree.map(_copied, params)


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf if _is_read_only(leaf) else np.array(leaf)
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return leaf
    if leaf.is_deleted():
        raise ValueError(
            f"compile needs weights that are there, an array of shape {leaf.shape} was donated to "
            "a jitted function; pass the params that this function returned."
        )
    return np.asarray(leaf) if _is_shared(leaf) else jax.numpy.copy(leaf)


def _is_read_only(array: np.ndarray) -> bool:
    """Can nobody write to the array's memory, through what it views neither?"""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    try:
        return owner is None or memoryview(owner).readonly
    except TypeError:  # no buffer to write to, such as JAX's own
        return True


def _is_shared(array: jax.Array) -> bool:
    """Is NumPy's view of the array all that there is to it, and no copy?"""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.extended) or array.weak_type:
        return False
    return len(array.devices()) == 1 and {device.platform for device in array.devices()} == {"cpu"}


def check_alike(own: Any, other: Any) -> None:
    """Raise a ValueError unless other params have the structure, shapes and dtypes of our own."""
    ours, theirs = (dict(leaves_with_paths(params)) for params in (own, other))
    differing = [path for path in {**ours, **theirs} if _type(ours, path) != _type(theirs, path)]
    if differing:
        path = differing[0]
        found = f"{path} is {_type(theirs, path)}, not {_type(ours, path)}"
    else:
        structures: list[Any] = [jax.tree.structure(params) for params in (own, other)]
        if structures[0] == structures[1]:
            return
        found = f"{structures[1]}, not {structures[0]}"
    raise ValueError(
        "with_params needs params of the structure, shapes and dtypes that the function was "
        f"compiled with, got others: {found}; pass those of the same model, or call sj.compile."
    )


def same_numbers(own: Any, other: Any) -> bool:
    """Are the leaves that are no arrays, which a trace depends on, the same?"""
    pairs = zip(jax.tree.leaves(own), jax.tree.leaves(other), strict=True)
    plain = (bool, int, float, complex, str, bytes)
    return all(
        isinstance(a, jax.Array | np.ndarray) or a is b or (isinstance(a, plain) and a == b)
        for a, b in pairs
    )


def _type(leaves: dict[str, Any], path: str) -> str:
    """What is compared of a leaf."""
    if path not in leaves:
        return "missing"
    leaf = leaves[path]
    if not isinstance(leaf, jax.Array | np.ndarray):
        return type(leaf).__name__
    dtype = leaf.dtype
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return f"{dtype}{list(leaf.shape)}"


def fingerprint(closed: core.ClosedJaxpr) -> str:
    """A digest of a traced function: its equations, their numbers and all constants.

    Functions among the parameters are left out, for they are others each time.
    """
    digest = hashlib.blake2b(digest_size=16)
    with jax.ensure_compile_time_eval():
        for part in _parts(closed.jaxpr, closed.consts):
            digest.update(part)
    return digest.hexdigest()


def _parts(jaxpr: core.Jaxpr, consts: Sequence[Any]) -> Iterator[bytes]:
    for array in consts:
        yield from _bytes_of(array)
    for equation in jaxpr.eqns:
        yield equation.primitive.name.encode()
        for v in equation.invars:
            if isinstance(v, core.Literal):
                yield from _bytes_of(v.val)
        yield str([v.aval for v in equation.outvars]).encode()
        for name, value in sorted(equation.params.items()):
            yield from _parts_of_parameter(name, value)


def _parts_of_parameter(name: str, value: Any) -> Iterator[bytes]:
    if isinstance(value, core.ClosedJaxpr):
        yield from _parts(value.jaxpr, value.consts)
    elif isinstance(value, core.Jaxpr):
        yield from _parts(value, ())
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _parts_of_parameter(name, item)
    elif isinstance(value, bool | int | float | str | np.dtype):
        yield f"{name} {value}".encode()


def _bytes_of(array: Any) -> Iterator[bytes]:
    if jax.dtypes.issubdtype(getattr(array, "dtype", np.float32), jax.dtypes.extended):
        array = jax.random.key_data(array)
    array = np.asarray(array)
    yield str((array.shape, array.dtype)).encode()
    yield array.tobytes()


def type_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an input, as jit would take it."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        dtype = leaf.dtype
        if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
            dtype = jax.dtypes.canonicalize_dtype(dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype, weak_type=leaf.weak_type)
    try:
        aval = jax.typeof(leaf)
    except TypeError as error:
        raise TypeError(
            f"compile needs arrays as inputs, got {type(leaf).__name__}; "
            "bind other arguments with functools.partial."
        ) from error
    weak = bool(getattr(aval, "weak_type", False))
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=weak)
