"""Whether a loop asks for the forward weights of its Reparam, seen while Python runs it."""

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import jax

from sparsejax import text


class ForwardWarning(UserWarning):
    """A method with forward weights of its own is trained, but its loss never asked for them."""


class Watch:
    """What is known outside of traces about one `sparsify`.

    It is equal to any other: the structure of an optimizer state does not depend on it.
    """

    def __init__(self) -> None:
        self.asked = self.warned = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watch)

    def __hash__(self) -> int:
        return hash(Watch)


class _Anchor:
    """Something to refer to."""


@dataclass
class _Mark:
    """A traced step that forward weights were made at, whose it was, and whether an update met it.

    The anchor lives as long as the traced program; None where nothing in it can hold one.
    """

    step: Any
    watch: Any
    anchor: Any
    met: bool = False

    def serves(self, watch: Watch) -> bool:
        """May a program without an update, traced for this mark, be called for this transform?"""
        alive = self.anchor is None or self.anchor() is not None
        return not self.met and (alive or self.watch() is watch)


# By Reparam and plan: a compiled function that makes forward weights serves equal transforms, and
# is not traced again for them, as long as it lives. A mark that an update met belongs to that
# update's own program.
_MARKS: dict[tuple[Any, Any], list[_Mark]] = {}


def note_forward(own: Any, step: Any) -> None:
    """Remembers that the forward weights of this ReparamState were made."""
    if not isinstance(step, jax.core.Tracer):
        own.watch.asked = True
        return
    marks = _MARKS.setdefault((own.reparam, own.plan), [])
    left = [mark for mark in marks if mark.step() is None and not mark.met]
    once = {(id(mark.watch()), mark.anchor and id(mark.anchor())): mark for mark in left}
    marks[:] = [mark for mark in marks if mark.step() is not None] + list(once.values())
    if not any(mark.step() is step for mark in marks):
        marks.append(_Mark(weakref.ref(step), weakref.ref(own.watch), _anchored(step)))


def _anchored(step: Any) -> Any:
    """A weak reference to what the program being traced holds until it is forgotten."""
    anchor = _Anchor()
    same = jax.custom_jvp(lambda step: step)
    same.defjvp(lambda primals, tangents, held=anchor: (primals[0], tangents[0]))
    trace = getattr(same(step), "_trace", None)
    # Inside of remat or a loop it would be forgotten with the body's trace.
    return weakref.ref(anchor) if trace is getattr(step, "_trace", step) else None


def uses_forward(own: Any, step: Any) -> bool:
    """True if gradients given to an update may be those of the forward weights; warns once if not.

    They may if forward weights were made at the very step that this program updates, outside of
    any program, or in another one (which a loop with several jitted parts calls).
    """
    marks = _MARKS.get((own.reparam, own.plan), [])
    here = [mark for mark in marks if mark.step() is step]
    for mark in here:
        mark.met = True
    serve = lambda: any(mark.serves(own.watch) for mark in marks)
    if here or own.watch.asked:
        return True
    if serve():
        if not any(mark.watch() is own.watch for mark in marks):
            gc.collect()  # a loop that is over, with all its programs, speaks for no other
        if serve():
            return True
    if not own.watch.warned:
        own.watch.warned = True
        text.warn(
            "sparsify updates weights whose method or quantizer has forward weights of its own, "
            "but the loss was not computed at them: compute it at sj.forward(params, opt_state), "
            "or sj.forward(model, optimizer) in NNX; else the weights that harden gives were never "
            "trained. (Gradients that come from elsewhere: filter sj.ForwardWarning.)",
            ForwardWarning,
        )
    return False
