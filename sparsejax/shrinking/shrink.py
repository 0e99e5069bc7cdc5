"""`shrink`: params without their pruned channels, and the function that runs on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsejax import text
from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs.widths.groups import traced
from sparsejax.shrinking.chosen import chosen_channels
from sparsejax.shrinking.cut import Keep, cut, cut_state, positions
from sparsejax.shrinking.modules import as_module, is_module, renumbered
from sparsejax.shrinking.proof import COUNTED, counted_by
from sparsejax.shrinking.smaller_apply import smaller_apply
from sparsejax.tree import leaves_with_paths, map_with_paths


@dataclass(frozen=True)
class Shrunk:
    """A network with fewer channels.

    Attributes:
      params: the same tree with smaller leaves.
      apply: `apply(params, *inputs)`, a pure function that runs on them.
      opt_state: the optimizer's state, cut alike; None if none was given.
      widths: how many units of each group are left, by the group's name.
      keep: which ones, True where kept.
      refused: groups of which pruned units had to stay, and why.
    """

    params: Any
    apply: Callable[..., Any]
    opt_state: Any
    widths: dict[str, int]
    keep: dict[str, np.ndarray]
    refused: dict[str, str]


@checked(apply_fn=FUNCTION)
def shrink(
    apply_fn: Callable[..., Any], params: Any, *example: Any, keep: Any, opt_state: Any = None
) -> Shrunk:
    """The network without its pruned channels: smaller params, and a function that runs on them.

    The new function is the traced one with its shapes adapted. It gives what the large one gives
    with zeros in place of all weights of the channels that are gone, to float32 rounding, in
    evaluation mode; it can be trained, jitted, differentiated, batched, compiled and exported.
    Numbers that the function itself divides by, as the mean of a norm does, stay what they were.

    A module of NNX or Equinox, given as `params` with `lambda module, x: module(x)`, comes back as
    a module that can be called, its own numbers of widths, heads and groups changed with the
    weights. What it would compute otherwise, because it divides by a width, keeps its channels
    (`refused`). A linen module is made anew from `widths`.

    Args:
      apply_fn: a function `apply_fn(params, *inputs)` in evaluation mode.
      params: any pytree, of weights and statistics.
      example: inputs, or their shapes; others are traced when they come.
      keep: which channels stay: a dict of a bool array for each group that loses some, by the name
        it has in `channel_groups`; or masks, as `sj.masks_of(opt_state)` gives them; or a plan with
        `sj.Channel` leaves, whose sparsity then holds for the groups of these leaves, by magnitude.
        With masks, weights that are not pruned stay what they are: where a pruned channel still
        holds a constant, of a bias or a norm's shift, that is folded into the bias or mean behind
        the next product, if it is exact, and else the channel stays (`refused`).
      opt_state: of any optimizer; moments are cut as the params are. Of `sj.sparsify`, what is cut
        are its masks, too: take the state of the optimizer inside it to go on without masks.

    Raises:
      ValueError: a group is not there, cannot lose channels, or would lose all.

    Example:
      >>> keep = {"body/kernel": jnp.array([True, True, False, True])}
      >>> small = sj.shrink(model.apply, params, x, keep=keep)
      >>> small.params["body"]["kernel"].shape, small.params["head"]["kernel"].shape
      ((8, 3), (3, 2))
      >>> small.apply(small.params, x).shape
      (3, 2)
    """
    check_examples("shrink", apply_fn, params, example)
    arrays = {path: leaf for path, leaf in leaves_with_paths(params) if hasattr(leaf, "shape")}
    with tracing("shrink"):
        made = traced(apply_fn, params, example)
    shapes = {path: np.shape(leaf) for path, leaf in arrays.items()}
    whole = {group.name: COUNTED for group in made.groups if group.sums and is_module(params)}
    chosen = chosen_channels(made, arrays, keep, whole)

    def smaller(keep: Keep) -> Any:
        stays = positions(made.groups, keep, shapes)
        small = cut(map_with_paths(chosen.corrected, params), stays)
        return renumbered(small, params, made.groups, keep) if is_module(params) else small

    while is_module(params) and (
        counted := counted_by(apply_fn, smaller, example, made, chosen.keep)
    ):
        whole |= counted
        chosen = chosen_channels(made, arrays, keep, whole)
    for name, reason in chosen.refused.items():
        text.warn(f"shrink keeps pruned channels of {name}, because of {reason}.")
    stays, small = positions(made.groups, chosen.keep, shapes), smaller(chosen.keep)
    if opt_state is not None:
        opt_state = as_module(cut_state(opt_state, params, stays), small)
    return Shrunk(
        params=small,
        apply=smaller_apply(apply_fn, params, stays),
        opt_state=opt_state,
        widths={group.name: chosen.width(group) for group in made.groups},
        keep=dict(chosen.keep),
        refused=dict(chosen.refused),
    )
