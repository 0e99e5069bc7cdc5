"""GraSP: pruning at initialisation that preserves the flow of gradients."""

from collections.abc import Sequence
from typing import Any

from sparsejax.doors import LOSS, checked
from sparsejax.masks.importance import Loss, gradient_norm
from sparsejax.masks.initial import InitialMasks, masks_from_scores


@checked(loss=LOSS)
def grasp(loss: Loss, batches: Sequence[Any], *, globally: bool = True) -> InitialMasks:
    """Initial masks that keep the largest w * (H g): the weights that hold |g| up.

    To first order, |g|^2 changes by -2 w (H g) when a weight goes. The product with the Hessian is
    one jvp of the gradient: about three gradients a batch in all.

    Args:
      loss: `f(params, batch) -> scalar`. The paper divides the logits by a temperature of 200:
        write it into the loss.
      batches: a list of batches of equal shapes; ten examples of each class in the paper.
      globally: one threshold for the network as in the paper, or each leaf to its own target.

    Example:
      >>> loss = lambda params, batch: jnp.mean(model.apply(params, batch) ** 2)
      >>> masks = sj.before.grasp(loss, [x])
      >>> tx = sj.sparsify(tx, sj.chain(), plan, key=key, initial_masks=masks)

    Differs: g and H range over all params, as in the equation; the authors' code leaves out biases
    and normalisation.

    Reference: Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient
    Flow", ICLR 2020, arXiv 2002.07376, equation 8 and algorithm 1.
    """
    return masks_from_scores(gradient_norm(loss, batches), globally=globally)
