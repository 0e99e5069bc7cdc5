"""A jaxpr evaluated so that it also puts out what chosen products meet, in any loop or branch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from sparsejax.jaxprs.calls import body_of, bound
from sparsejax.jaxprs.places import Trail
from sparsejax.jaxprs.read import walk

Tap = tuple[Trail, int]  # the ids of the equations around a product and its own; the weight's side
Moments = dict[Tap, Any]


def run_tapped(
    closed: core.ClosedJaxpr,
    operands: Sequence[Any],
    taps: Mapping[Tap, tuple[bool, ...]],
    moment: Callable[[Any, int, Sequence[Any]], Any] | None = None,
    change: Callable[[Tap, Sequence[Any]], Sequence[Any]] | None = None,
) -> tuple[list[Any], Moments]:
    """The outputs, and the sums of `moment(equation, side, operands)` over each product's runs.

    Args:
      closed: any jaxpr.
      operands: of it.
      taps: for each product, which of the loops around it keep their turns apart, in front.
      moment: an array; None for none.
      change: `change(tap, operands)` are what a product runs on in the place of its operands.

    Raises:
      ValueError: a product lies inside of an equation that cannot be opened.
    """
    runner = _Runner(dict(taps), moment, change)
    return runner.run(closed.jaxpr, closed.consts, operands, (), 0)


class _Runner:
    """Evaluates equations one by one where a tap lies inside, else as they are."""

    def __init__(
        self,
        taps: dict[Tap, tuple[bool, ...]],
        moment: Callable[..., Any] | None,
        change: Callable[..., Any] | None,
    ):
        self.taps = taps
        self.moment = moment
        self.change = change
        self.around = {trail[:end] for trail, _ in taps for end in range(1, len(trail))}

    def run(
        self, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any], trail: Trail, depth: int
    ) -> tuple[list[Any], Moments]:
        """The outputs and the moments inside; `depth` is the number of loops around."""
        moments: Moments = {}

        def step(equation: Any, inputs: list[Any]) -> Sequence[Any]:
            own = (*trail, id(equation))
            for side in (0, 1):
                if (own, side) in self.taps and self.moment is not None:
                    moments[own, side] = self.moment(equation, side, inputs)
                if (own, side) in self.taps and self.change is not None:
                    inputs = list(self.change((own, side), inputs))
            if own not in self.around:
                return bound(equation, inputs)
            outputs, inside = self._open(equation, inputs, own, depth)
            moments.update(inside)
            return outputs

        outputs = walk(jaxpr, consts, operands, step, lambda v, value: value)
        return outputs, moments

    def _open(
        self, equation: Any, inputs: list[Any], trail: Trail, depth: int
    ) -> tuple[list[Any], Moments]:
        if (body := body_of(equation)) is not None:
            return self.run(body.jaxpr, body.consts, inputs, trail, depth)
        name = equation.primitive.name
        if name not in OPENED:
            raise ValueError(
                f"calibrate cannot look into `{name}`; call it on the function that is given to it."
            )
        return OPENED[name](self, equation, inputs, trail, depth)

    def apart(self, moments: Moments, depth: int) -> tuple[Moments, Moments]:
        """Those that a loop sums up, and those whose turns it keeps."""
        kept = {tap: m for tap, m in moments.items() if self.taps[tap][depth]}
        return {tap: m for tap, m in moments.items() if tap not in kept}, kept


def _zeros(f: Callable[..., Moments], *operands: Any) -> Moments:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, *operands))


def _scan(
    runner: _Runner, equation: Any, inputs: list[Any], trail: Trail, depth: int
) -> tuple[list[Any], Moments]:
    params, body = equation.params, equation.params["jaxpr"]
    first, num_carry = params["num_consts"], params["num_carry"]
    carry, xs = inputs[first : first + num_carry], inputs[first + num_carry :]

    def turn(carry: Any, xs: Any) -> tuple[list[Any], tuple[Moments, Moments]]:
        own = [*inputs[:first], *carry, *xs]
        outputs, moments = runner.run(body.jaxpr, body.consts, own, trail, depth + 1)
        return outputs, runner.apart(moments, depth)

    def step(state: Any, xs: Any) -> tuple[Any, Any]:
        outputs, (summed, kept) = turn(state[0], xs)
        sums = {tap: state[1][tap] + m for tap, m in summed.items()}
        return (outputs[:num_carry], sums), (outputs[num_carry:], kept)

    start = _zeros(lambda c, x: turn(c, x)[1][0], carry, [x[0] for x in xs])
    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    (carry, sums), (ys, kept) = lax.scan(step, (carry, start), xs, **options)
    # Turns lie in front of those of loops further in, as the steps of a site are in order.
    return [*carry, *ys], {**sums, **kept}


def _while(
    runner: _Runner, equation: Any, inputs: list[Any], trail: Trail, depth: int
) -> tuple[list[Any], Moments]:
    params = equation.params
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    skip = params["cond_nconsts"]
    first = skip + params["body_nconsts"]

    def turn(carry: Any) -> tuple[list[Any], Moments]:
        own = [*inputs[skip:first], *carry]
        return runner.run(body.jaxpr, body.consts, own, trail, depth + 1)

    def step(state: Any) -> Any:
        outputs, moments = turn(state[0])
        return outputs, {tap: state[1][tap] + m for tap, m in moments.items()}

    def goes_on(state: Any) -> Any:
        return core.jaxpr_as_fun(test)(*inputs[:skip], *state[0])[0]

    start = _zeros(lambda carry: turn(carry)[1], inputs[first:])
    return lax.while_loop(goes_on, step, (inputs[first:], start))


def _cond(
    runner: _Runner, equation: Any, inputs: list[Any], trail: Trail, depth: int
) -> tuple[list[Any], Moments]:
    def runs(branch: Any) -> Callable[..., tuple[list[Any], Moments]]:
        return lambda *own: runner.run(branch.jaxpr, branch.consts, own, trail, depth)

    branches = [runs(branch) for branch in equation.params["branches"]]
    nothing: Moments = {}
    for branch in branches:
        nothing |= _zeros(lambda *own, f=branch: f(*own)[1], *inputs[1:])

    def whole(branch: Any) -> Callable[..., Any]:
        def call(*own: Any) -> Any:
            outputs, moments = branch(*own)
            return outputs, {**nothing, **moments}

        return call

    return lax.switch(inputs[0], [whole(branch) for branch in branches], *inputs[1:])


OPENED: dict[str, Callable[..., tuple[list[Any], Moments]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
}
