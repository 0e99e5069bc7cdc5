"""Networks that are told apart less well: substitutes for blocks within a budget."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sparsejax.audit.attack import Attack
from sparsejax.doors import FUNCTION, checked


class Candidate(NamedTuple):
    """A network that could stand for another.

    Attributes:
        features: of its execution, as the attack sees them.
        multiply_adds: of one input.
    """

    features: Mapping[str, float]
    multiply_adds: int


class Hardened(NamedTuple):
    """The substitute that the attack takes least for what it is.

    Attributes:
        name: of the candidate; "" where none keeps to the budget: the original stays.
        confidence: of the attack in the true family.
        before: the same of the original.
        accuracy: of the candidate, as it was measured; nan for the original.
        refused: candidates that were asked first, and why they were not taken.
    """

    name: str
    confidence: float
    before: float
    accuracy: float
    refused: Mapping[str, str]


@checked(accuracy=FUNCTION)
def harden_blocks(
    attack: Attack,
    family: str,
    original: Candidate,
    candidates: Mapping[str, Candidate],
    *,
    accuracy: Callable[[str], float],
    least_accuracy: float,
    max_multiply_adds: float = 1.25,
) -> Hardened:
    """The candidate that hides best what family a network is of, within a budget.

    Candidates are tried from the one in which the attack has the least confidence on; only those
    whose multiply-adds are within the budget are trained, and the first that is accurate enough is
    taken, so that few are.

    Args:
        attack: that is to fail.
        family: that the network is of.
        original: the network as it is.
        candidates: with other blocks, such as group convolutions for depthwise ones.
        accuracy: trains or looks up a candidate of this name.
        least_accuracy: that will do.
        max_multiply_adds: as a fraction of the original's.

    Example:
        >>> safe = sj.audit.harden_blocks(                                         # doctest: +SKIP
        ...     attack, "separable", original, candidates, accuracy=train, least_accuracy=0.87
        ... )

    Reference:
        Jha et al., "DeepPeep", ACM JETC 2020, arXiv:2007.15248: its Secure MobileNet-v1 trades
        depthwise for group convolutions, as far as is remembered.
    """
    told = lambda candidate: attack.confidence(candidate.features)[family]
    before, refused = told(original), {}
    for name in sorted(candidates, key=lambda name: told(candidates[name])):
        candidate = candidates[name]
        if told(candidate) >= before:
            refused[name] = "tells no less than the original"
        elif candidate.multiply_adds > max_multiply_adds * original.multiply_adds:
            ratio = candidate.multiply_adds / original.multiply_adds
            refused[name] = f"{ratio:.2f} times the multiply-adds"
        elif (found := accuracy(name)) < least_accuracy:
            refused[name] = f"accuracy {found:.4g}"
        else:
            return Hardened(name, told(candidate), before, found, refused)
    return Hardened("", before, before, float("nan"), refused)
