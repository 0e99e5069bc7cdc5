"""What attention modules add to a network, by the counts of the ULSAM paper."""

from typing import NamedTuple


class Overhead(NamedTuple):
    """What a module adds: parameters, and multiply-adds of one image."""

    params: int
    multiply_adds: int


def attention_overhead(
    kind: str,
    channels: int,
    height: int,
    width: int,
    *,
    reduction: int = 16,
    bottleneck: int | None = None,
) -> Overhead:
    """The parameters and multiply-adds of an attention module on maps of this size.

    Args:
      kind: "non_local", "a2", "squeeze_excite", "bam", "cbam" or "ulsam".
      channels: m, of the maps.
      height, width: of the maps.
      reduction: r, of the bottleneck of squeeze-and-excite, BAM and CBAM.
      bottleneck: t, of A2-Net; m / 8 by default.

    Example:
      >>> sj.nn.attention_overhead("ulsam", 512, 14, 14)
      Overhead(params=1024, multiply_adds=200704)

    Differs: "ulsam" is the module of the paper's count, 2m; the authors' code, `sj.nn.ULSAM`, has
    5m parameters and 3 more for each group.

    Reference: Saini et al., "ULSAM", WACV 2020, arXiv 2006.15102: its comparison of modules, as on
    the authors' poster, at m = 512, 14 x 14, r = 16, t = m / 8.
    """
    m, pixels, r = channels, height * width, reduction
    t = m // 8 if bottleneck is None else bottleneck
    perceptron = 2 * m * m // r
    bam = 4 * m * m // r + 18 * m * m // r**2
    known = {
        "non_local": Overhead(2 * m * m, 2 * m * m * pixels),
        "a2": Overhead(2 * m * t, 2 * m * t * pixels),
        "squeeze_excite": Overhead(perceptron, perceptron),
        "bam": Overhead(bam, perceptron + bam * pixels),
        "cbam": Overhead(perceptron + 98, perceptron + 98 * pixels),
        "ulsam": Overhead(2 * m, 2 * m * pixels),
    }
    if kind not in known:
        raise ValueError(f"attention_overhead needs one of {', '.join(known)}, got {kind!r}.")
    return known[kind]
