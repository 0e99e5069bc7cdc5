"""What compile chose for one layer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        path: of its weights in the user's params.
        kind: "pointwise", "depthwise", "convolution" or "linear"; in XLA also "1-D convolution",
            "product", or the loop that it is in.
        shape: of the weights, HWIO or (inputs, outputs).
        sparsity: fraction of zeros among the weights after folding.
        kernel: "sparse", "dense", "depthwise" or "xla".
        pattern: how the weights are stored: "CSR", "2x1", "4x1", "8x1", "mask groups" or "dense";
            "zeros skipped" where they are dense, and those that meet zeros are not multiplied.
        activation: the function that runs with the layer, "" for none.
        microseconds: of one call on the compiled shape, batch included, measured on one core; nan
            where it was not.
        break_even: sparsity from which on the layer is faster than dense on this machine.
        estimated: do break_even and the reason's ratio come from a model, as no dense layer of this
            size was measured?
        reason: why this kernel.
        handed_back: could the kernels run it, and XLA is faster?
        region: number of the custom call that it is part of, -1 in XLA.
        multiply_adds: of the dense layer on the compiled shape, batch included.
        sparse_multiply_adds: those with a nonzero weight.
        batch: images in one call; rows of a matrix count as one.
        turns: of the loop that the layer is in, which times and multiply-adds count; None where
            values decide how many these are, as in a while loop, and one turn is counted.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float
    kernel: str
    pattern: str
    activation: str
    microseconds: float
    break_even: float
    reason: str
    region: int
    multiply_adds: int
    sparse_multiply_adds: int
    batch: int = 1
    estimated: bool = False
    handed_back: bool = False
    turns: int | None = 1

    @property
    def microseconds_per_image(self) -> float:
        """The time of one image of the batch."""
        return self.microseconds / max(self.batch, 1)
