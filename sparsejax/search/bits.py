"""HAQ's problem: how many bits each layer's weights and inputs get, within a budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparsejax.search.layers import WeightLayer
from sparsejax.search.rounding import Bits
from sparsejax.search.space import Choice, Interval, Space

Costs = Callable[[Bits], float]


@dataclass(frozen=True)
class BitTable:
    """Milliseconds of each layer by the bits of its weights and inputs.

    Attributes:
      milliseconds: of each layer by path, at [weight bits - 1, input bits - 1].
      source: where they come from: "modelled by ..." or "measured on ...".
    """

    milliseconds: Mapping[str, Float[np.ndarray, "bits bits"]]
    source: str

    def __call__(self, bits: Bits) -> float:
        """The sum over the layers."""
        return float(sum(self.milliseconds[path][w - 1, a - 1] for path, (w, a) in bits.items()))


def weight_bytes(layers: Sequence[WeightLayer]) -> Costs:
    """The cost of bits as the bytes of the layers' weights.

    Example:
      >>> layers = sj.search.weight_layers(model.apply, params, x)
      >>> sj.search.weight_bytes(layers)({"body/kernel": (4, 8), "head/kernel": (8, 8)})
      24.0
    """
    sizes = {layer.path: layer.num_weights for layer in layers}
    return lambda bits: sum(sizes[path] * own for path, (own, _) in bits.items()) / 8


@dataclass(frozen=True)
class BitSearch:
    """The choice of two numbers of bits for each layer, one after the other, within a budget.

    Attributes:
      layers: in order; the first and the last keep `high` bits.
      costs: of all layers' bits; it must not fall with any of them.
      limit: of the costs.
      low, high: the bits that there are.
    """

    layers: tuple[WeightLayer, ...]
    costs: Costs
    limit: float
    low: int
    high: int

    @property
    def space(self) -> Space:
        """A number in [0, 1] for the weights and one for the inputs of each inner layer."""
        return {
            f"{layer.path} {what}": Interval(0.0, 1.0)
            for layer in self.layers[1:-1]
            for what in ("weights", "inputs")
        }

    def bits(self, choice: Choice) -> dict[str, tuple[int, int]]:
        """The bits asked for, less what the budget wants.

        While they cost too much, one bit is taken from the last layer's inputs, then its weights,
        and so on to the first, never below `low`, and then again from the last.
        """
        asked = [self._asked(choice[name]) for name in self.space]
        own = [[self.high] * 2, *zip(asked[::2], asked[1::2], strict=True), [self.high] * 2]
        left = [list(pair) for pair in own]
        places = [(i, side) for i in range(len(left) - 2, 0, -1) for side in (1, 0)]
        while self.costs(self._named(left)) > self.limit:
            wide = [(i, side) for i, side in places if left[i][side] > self.low]
            if not wide:
                break
            for i, side in wide:
                left[i][side] -= 1
                if self.costs(self._named(left)) <= self.limit:
                    break
        return self._named(left)

    def observe(self, actions: Sequence[float]) -> Float[np.ndarray, "steps features"]:
        """What an agent sees before each of its actions, and before the next one.

        Is the layer depthwise; its inputs, outputs, stride, window, weights and input size, its
        place, all scaled to [0, 1] over the layers; the last action's bits; weights or inputs?
        """
        inner = self.layers[1:-1]
        sizes = np.array([_sizes(number, layer) for number, layer in enumerate(inner)], np.float64)
        span = np.ptp(sizes, axis=0)
        scaled = (sizes - sizes.min(0)) / np.where(span > 0, span, 1.0)
        steps = min(len(actions) + 1, 2 * len(inner))
        last = [1.0, *(self._asked(action) / self.high for action in actions)]
        rows = [[*scaled[step // 2], last[step], step % 2] for step in range(steps)]
        return np.array(rows, np.float32)

    def _asked(self, action: float) -> int:
        """Each number of bits for an equal part of [0, 1]."""
        bits = round((self.high - self.low + 1) * action + self.low - 0.5)
        return min(max(bits, self.low), self.high)

    def _named(self, bits: Sequence[Sequence[int]]) -> dict[str, tuple[int, int]]:
        pairs = zip(self.layers, bits, strict=True)
        return {layer.path: (own[0], own[1]) for layer, own in pairs}


def bit_search(
    layers: Sequence[WeightLayer],
    costs: Costs,
    *,
    limit: float,
    low: int = 2,
    high: int = 8,
) -> BitSearch:
    """HAQ's search space: bits of the weights and inputs of each layer, within a budget.

    Args:
      layers: of `weight_layers`, three or more.
      costs: `weight_bytes(layers)`, or a table such as `DeviceModel.bit_table(layers)`.
      limit: of the costs, in their unit.
      low, high: the bits that there are.

    Raises:
      ValueError: fewer layers, or all at their fewest bits cost more than the limit.

    Example:
      >>> layer = sj.search.weight_layers(model.apply, params, x)[0]
      >>> layers = [layer._replace(path=name) for name in "abc"]
      >>> own = sj.search.bit_search(layers, sj.search.weight_bytes(layers), limit=80)
      >>> own.bits({"b weights": 1.0, "b inputs": 1.0})
      {'a': (8, 8), 'b': (4, 4), 'c': (8, 8)}

    Differs: where the authors' code rounds an action of 0 to no bits at all, `low` holds.

    Reference: Wang et al., "HAQ: Hardware-Aware Automated Quantization with Mixed Precision", CVPR
    2019, arXiv 1811.08886; states and projection as in the authors' code.
    """
    if len(layers) < 3 or not 1 <= low <= high:
        raise ValueError(
            "bit_search needs three layers or more and 1 <= low <= high, got "
            f"{len(layers)} layers, low={low} and high={high}."
        )
    made = BitSearch(tuple(layers), costs, limit, low, high)
    least = costs(made.bits(dict.fromkeys(made.space, 0.0)))
    if least > limit:
        raise ValueError(
            f"bit_search needs a limit that its layers can meet, got {limit:.4g}; at {low} bits "
            f"they cost {least:.4g}."
        )
    return made


def _sizes(number: int, layer: WeightLayer) -> list[float]:
    own = (layer.inputs, layer.outputs, layer.stride, layer.window, layer.num_weights)
    return [layer.is_depthwise, *own, layer.input_size, number]
