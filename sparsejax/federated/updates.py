"""What of the base a client sends: all of it, the weights of masks, or the largest changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.doors import PLAN, Need, checked
from sparsejax.federated.messages import everything
from sparsejax.federated.variables import Variables
from sparsejax.plans.plan import Plan
from sparsejax.plans.planned_leaves import map_params
from sparsejax.tree import is_masked_node, leaves_with_paths, map_with_paths


class BaseUpdate(NamedTuple):
    """How a client tells the server about its base: pure functions of one client.

    Attributes:
        init: base -> what the client keeps for later, such as changes that it did not send.
        send: (trained base, base, kept) -> (what the server then knows of the trained base, which
            positions were sent, kept). Where nothing is sent the server knows the base of before.
        shared: base -> positions that server and clients have agreed upon, so that values go
            without them; None where each message says its positions.
    """

    init: Callable[[Variables], Any]
    send: Callable[[Variables, Variables, Any], tuple[Variables, Variables, Any]]
    shared: Callable[[Variables], Variables | None]


UPDATE = Need(
    "a BaseUpdate",
    lambda thing: isinstance(thing, BaseUpdate),
    "call sj.federated.whole_update(), masked_update(masks) or top_k_update(plan)",
)


def whole_update() -> BaseUpdate:
    """The update that sends all of the base, as FedAvg and FedPer do.

    Example:
      >>> update = sj.federated.whole_update()
    """
    send = lambda trained, base, kept: (trained, everything(base), kept)
    return BaseUpdate(lambda base: (), send, everything)


def masked_update(masks: Any) -> BaseUpdate:
    """The update that sends the kept weights of masks that server and clients have in common.

    As all know the positions, a message holds values alone: kept x bytes of a weight. What is
    pruned stays on the server as it was, an exact zero among it. The first message to a client is
    the whole base. Leaves without a mask, and statistics, are sent whole. Train with these masks,
    too: `sj.sparsify(tx, sj.chain(), plan, key=key, initial_masks=lambda params, plan: masks)`.

    Args:
      masks: True where a weight is kept, a tree with the paths of the params, such as that of
        `sj.masks_of`; masks of personal layers are no matter of the server's.

    Raises:
      ValueError: there is no mask, or one at a path that the params lack.
      TypeError: a mask is not of booleans.

    Example:
      >>> masks = sj.masks.masks_from_zeros(params, plan)
      >>> update = sj.federated.masked_update(masks)
    """
    pairs = leaves_with_paths(masks)
    by_path = {path: mask for path, mask in pairs if not is_masked_node(mask)}
    if not by_path:
        raise ValueError("masked_update needs masks, got a tree without any; use whole_update().")
    for path, mask in by_path.items():
        if getattr(mask, "dtype", None) != np.bool_:
            raise TypeError(
                f"masked_update needs masks of booleans, got {getattr(mask, 'dtype', mask)} at "
                f"{path!r}; pass sj.masks_of(opt_state), say."
            )

    def shared(base: Variables) -> Variables:
        paths = {path for path, _ in leaves_with_paths(base.params)}
        for path in by_path.keys() - paths:
            raise ValueError(
                f"masked_update needs masks of the params, got one at {path!r}, where they have "
                "nothing; make the masks of the params that the clients train."
            )

        def own(path: str, leaf: Any) -> Any:
            if is_masked_node(leaf):
                return leaf
            return jnp.broadcast_to(by_path.get(path, True), leaf.shape)

        return everything(base)._replace(params=map_with_paths(own, base.params))

    def send(trained: Variables, base: Variables, kept: Any) -> Any:
        sent = shared(base)
        return jax.tree.map(jnp.where, sent, trained, base), sent, kept

    return BaseUpdate(lambda base: (), send, shared)


@checked(plan=PLAN)
def top_k_update(plan: Plan, *, error_feedback: bool = True) -> BaseUpdate:
    """The update that sends the largest changes of a plan's leaves, exactly as many as it says.

    The change of a leaf since the base came, with what was left unsent before, is pruned by the
    plan's pattern and sparsity, by magnitude. The server adds what it gets to its base, and the
    rest waits at the client (error feedback). Leaves that the plan does not name, and statistics,
    are sent whole. A message holds values and positions in the shortest of three forms: all values;
    a bit for each position; an index for each value, two bytes in leaves of up to 2**16, else four.

    Args:
      plan: names leaves of the base; `sj.Unstructured()` at a sparsity of 0.99 sends 1 %.
      error_feedback: whether what is not sent waits, or is forgotten.

    Raises:
      ValueError: the plan names a leaf that is personal, or none of the params.

    Example:
      >>> update = sj.federated.top_k_update(plan)

    Reference: Aji and Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP
    2017, arXiv 1704.05021. Differs: k is exact and of each leaf, and changes of weights are sent.
    """

    def init(base: Variables) -> Any:
        pairs = leaves_with_paths(base.params)
        paths = {path for path, leaf in pairs if not is_masked_node(leaf)}
        for leaf in plan.leaves:
            if leaf.array_path not in paths:
                raise ValueError(
                    f"top_k_update needs a plan of the base, it names {leaf.path!r}, which is not "
                    "sent; give that path the rule None in front."
                )
        return map_params(lambda leaf, weights: jnp.zeros_like(weights), plan, base.params)

    def send(trained: Variables, base: Variables, kept: Any) -> Any:
        change = jax.tree.map(jnp.subtract, trained.params, base.params)
        change = map_with_paths(
            lambda _, own, rest: own if is_masked_node(rest) else own + rest, change, kept
        )
        masks = map_params(
            lambda leaf, own: leaf.pattern.mask(jnp.abs(own), leaf.sparsity), plan, change
        )

        def known(_: str, new: Any, old: Any, own: Any, mask: Any) -> Any:
            return new if is_masked_node(mask) else jnp.where(mask, old + own, old)

        def positions(_: str, old: Any, mask: Any) -> Any:
            whole = is_masked_node(mask) and not is_masked_node(old)
            return jnp.ones(old.shape, bool) if whole else mask

        def rest(_: str, mask: Any, own: Any) -> Any:
            waits = error_feedback and not is_masked_node(mask)
            return jnp.where(mask, 0, own) if waits else mask

        received = map_with_paths(known, trained.params, base.params, change, masks)
        sent = map_with_paths(positions, base.params, masks)
        kept = map_with_paths(rest, masks, change) if error_feedback else kept
        return (
            trained._replace(params=received),
            everything(base)._replace(params=sent),
            kept,
        )

    return BaseUpdate(init, send, lambda base: None)
