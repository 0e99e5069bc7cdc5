"""SNIP: pruning at initialisation by connection sensitivity."""

from collections.abc import Sequence
from typing import Any

from sparsejax.doors import LOSS, checked
from sparsejax.masks.importance import Loss, loss_based
from sparsejax.masks.initial import InitialMasks, masks_from_scores


@checked(loss=LOSS)
def snip(loss: Loss, batches: Sequence[Any], *, globally: bool = True) -> InitialMasks:
    """Initial masks that keep the largest |w * dL/dw| of the network before any training.

    Give it to `sparsify` with a method that leaves the masks alone, such as `sj.chain()`.

    Args:
      loss: `f(params, batch) -> scalar`.
      batches: a list of batches of equal shapes; the paper takes one of 100 to 128 examples.
      globally: one threshold for the network as in the paper, or each leaf to its own target.

    Example:
      >>> loss = lambda params, batch: jnp.mean(model.apply(params, batch) ** 2)
      >>> masks = sj.before.snip(loss, [x])
      >>> tx = sj.sparsify(tx, sj.chain(), plan, key=key, initial_masks=masks)

    Reference: Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection
    Sensitivity", ICLR 2019, arXiv 1810.02340, equations 4 and 5.
    """
    return masks_from_scores(loss_based(loss, batches), globally=globally)
