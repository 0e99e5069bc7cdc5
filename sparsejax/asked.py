"""Whether a loop asks for the forward weights of its Reparam, seen while Python runs it."""

import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import jax


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


@dataclass
class _Mark:
    """A traced step that forward weights were made at, and whether an update met it."""

    step: Any
    met: bool = False


# By Reparam and plan: a compiled function that makes forward weights serves equal transforms, and
# is not traced again for them. A mark that an update met belongs to that update's own program.
_MARKS: dict[tuple[Any, Any], list[_Mark]] = {}


def note_forward(own: Any, step: Any) -> None:
    """Remembers that the forward weights of this ReparamState were made."""
    if not isinstance(step, jax.core.Tracer):
        own.watch.asked = True
        return
    marks = _MARKS.setdefault((own.reparam, own.plan), [])
    marks[:] = [mark for mark in marks if mark.step() is not None] + [
        mark for mark in marks if mark.step() is None and not mark.met
    ][:1]
    if not any(mark.step() is step for mark in marks):
        marks.append(_Mark(weakref.ref(step)))


def uses_forward(own: Any, step: Any) -> bool:
    """True if gradients given to an update may be those of the forward weights; warns once if not.

    They may if forward weights were made at the very step that this program updates, outside of
    any program, or in another one (which a loop with several jitted parts calls).
    """
    marks = _MARKS.get((own.reparam, own.plan), [])
    here = [mark for mark in marks if mark.step() is step]
    for mark in here:
        mark.met = True
    if here or own.watch.asked or any(not mark.met for mark in marks):
        return True
    if not own.watch.warned:
        own.watch.warned = True
        warnings.warn(
            "sparsify updates weights whose method or quantizer has forward weights of its own, "
            "but the loss was not computed at them: compute it at sj.forward(params, opt_state), "
            "or sj.forward(model, optimizer) in NNX; else the weights that harden gives were never "
            "trained. (Gradients that come from elsewhere: filter sj.ForwardWarning.)",
            ForwardWarning,
            stacklevel=3,
        )
    return False
