"""The doors of public functions: what an argument must be, said in one sentence where it is not."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


class Need(NamedTuple):
    """What an argument must be.

    Attributes:
      what: as a noun, "a plan made by sj.plan".
      fits: is it that?
      todo: for who brings something else.
    """

    what: str
    fits: Callable[[Any], bool]
    todo: str


FUNCTION = Need("a function of params and inputs", callable, "pass model.apply, say")
LOSS = Need("a loss, a function of params and a batch", callable, "pass the function itself")
SCHEDULE = Need("a function step -> number", callable, "pass lambda step: number for a constant")
SCORE = Need(
    "a score, a function of weights, gradients and key", callable, "pass sj.scores.magnitude, say"
)
ALLOCATOR = Need(
    "an allocator",
    callable,
    "pass the function itself: sj.allocate.uniform, sj.allocate.erk or sj.allocate.lamp",
)
INITIAL_MASKS = Need(
    "initial masks as a function of params and plan",
    callable,
    "pass lambda params, plan: masks for masks that are known",
)
PLAN = Need(
    "a plan made by sj.plan",
    lambda thing: hasattr(thing, "leaves") and hasattr(thing, "num_pruned"),
    "make it by sj.plan(params, rules, sparsity=...)",
)


def named(thing: Any) -> str:
    """What came, in a word or two."""
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    if inspect.isroutine(thing):
        return f"the function {thing.__name__}"
    return repr(thing) if isinstance(thing, str) else type(thing).__name__


def checked(**needs: Need) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that looks at these arguments before the function does; None passes as default.

    The sentence says whether something was not called, whether arguments were exchanged, and
    else what to do.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                _explain_options(function.__name__, signature, kwargs, error)
                raise
            for name, need in needs.items():
                optional = signature.parameters[name].default is None
                things = given.get(name, ())
                starred = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                for thing in things if starred else [things] if name in given else []:
                    if not need.fits(thing) and not (optional and thing is None):
                        _refuse(function.__name__, signature, need, thing, given)
            return function(*args, **kwargs)

        return run

    return decorate


def _refuse(
    who: str, signature: inspect.Signature, need: Need, thing: Any, given: Mapping[str, Any]
) -> None:
    """Raise the TypeError for an argument that is something else."""
    others = [other for other in given.values() if other is not thing]
    if need.fits is not callable and (isinstance(thing, type) or inspect.isroutine(thing)):
        todo = f"call it: {thing.__name__}(...)"
    elif need.fits is not callable and any(map(need.fits, others)):
        todo = f"its arguments come as {who}({_positional(signature)})"
    else:
        todo = need.todo
    raise TypeError(f"{who} needs {need.what}, got {named(thing)}; {todo}.")


def _positional(signature: inspect.Signature) -> str:
    """The arguments that are given by place."""
    keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return ", ".join(p.name for p in signature.parameters.values() if p.kind not in keyword)


def _explain_options(
    who: str, signature: inspect.Signature, options: Mapping[str, Any], error: TypeError
) -> None:
    """An option that is the network's own is bound before."""
    unknown = [name for name in options if name not in signature.parameters]
    if unknown and "apply_fn" in signature.parameters:
        raise TypeError(
            f"{who} has no option {unknown[0]!r}; if it is one of apply_fn, bind it: "
            f"functools.partial(apply_fn, {unknown[0]}=...)."
        ) from error


def check_examples(who: str, apply_fn: Callable, params: Any, example: Sequence[Any]) -> None:
    """Raise a TypeError unless there is an example of each input, of arrays alone."""
    order = f"call {who}(apply_fn, params, x)"
    if not example:
        raise TypeError(f"{who} needs an example of each input of apply_fn, got none; {order}.")
    for leaf in jax.tree.leaves(tuple(example)):
        if not (hasattr(leaf, "shape") or isinstance(leaf, bool | int | float | complex)):
            raise TypeError(
                f"{who} needs arrays as inputs, got {named(leaf)}; "
                "bind other arguments: functools.partial(apply_fn, name=...)."
            )
    try:
        signature = inspect.signature(apply_fn)
    except (TypeError, ValueError):  # written in C
        return
    try:
        signature.bind(params, *example)
    except TypeError as error:
        raise TypeError(
            f"{who} needs an example of each input of apply_fn, got {len(example)}: {error}; "
            f"{order}, and bind other arguments by functools.partial."
        ) from error


@contextmanager
def tracing(who: str) -> Iterator[None]:
    """What JAX says of a value that Python wants to know, with what to do about it."""
    try:
        yield
    except (jax.errors.ConcretizationTypeError, TypeError) as error:
        known = isinstance(error, jax.errors.JAXTypeError) or "concrete" in str(error)
        if not known:
            raise
        raise TypeError(
            f"{who} needs a function that can be traced without the values of its inputs, and one "
            "of them decides about its course or its shapes; bind that one by "
            "functools.partial(apply_fn, name=value), and pass the other inputs as examples."
        ) from error
