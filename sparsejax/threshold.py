"""One threshold over the groups of several arrays, and what each of them keeps above it.

The arrays are all of NumPy (the masks of a plan, counted in int64) or all of JAX (those of a
training step); keys are the scores as unsigned integers, of `sparsejax.top_k.ordered_keys`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from sparsejax.arrays import vary_alike


def common_threshold(keys: Sequence[Any], sizes: Any, num_kept: Any) -> Any:
    """The largest key at which groups of `sizes` weights make up at least `num_kept` weights."""
    namespace, dtype = keys[0].__array_namespace__(), keys[0].dtype
    num_bits = 8 * dtype.itemsize

    def try_bit(step: Any, found: Any) -> Any:
        shift = namespace.asarray(num_bits - 1 - step, dtype=dtype)
        candidate = found | namespace.asarray(1, dtype=dtype) << shift
        kept = (_counts([own >= candidate for own in keys], sizes) * sizes).sum(dtype=sizes.dtype)
        return namespace.where(kept >= num_kept, candidate, found)

    nothing = namespace.zeros((), dtype=dtype)
    if isinstance(nothing, jax.Array):
        nothing, *_ = vary_alike(nothing, *keys)
        return jax.lax.fori_loop(0, num_bits, try_bit, nothing)
    return _repeat(num_bits, try_bit, nothing)


def kept_by_threshold(keys: Sequence[Any], sizes: Any, threshold: Any, num_kept: Any) -> Any:
    """How many weights each array keeps; of groups at the threshold, the first up to `num_kept`."""
    above = _counts([own > threshold for own in keys], sizes) * sizes
    equal = _counts([own == threshold for own in keys], sizes) * sizes
    return above + fill_in_order(equal, num_kept - above.sum(dtype=above.dtype))


def fill_in_order(room: Any, amount: Any) -> Any:
    """`amount` spread over the arrays in order, each up to its room."""
    before = room.cumsum(dtype=room.dtype) - room
    return (amount - before).clip(0, room)


def _counts(tests: Sequence[Any], sizes: Any) -> Any:
    namespace = tests[0].__array_namespace__()
    return namespace.stack([namespace.count_nonzero(test) for test in tests]).astype(sizes.dtype)


def _repeat(times: int, step: Callable[[int, Any], Any], state: Any) -> Any:
    for index in range(times):
        state = step(index, state)
    return state
