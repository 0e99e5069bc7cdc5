"""How dense the activation maps of a network are, and what codes make of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from sparsejax import text
from sparsejax.activations.coders import (
    Coder,
    entropy,
    exponential_golomb,
    golomb,
    huffman,
    sparse_exponential_golomb,
    zero_value,
)
from sparsejax.activations.levels import quantize
from sparsejax.tree import leaves_with_paths

STORED = "SEG"  # the coder whose bytes are those after


@dataclass(frozen=True)
class MapDensity:
    """One layer's map, or all of them together.

    Attributes:
      path: of the map; "total" for all.
      size: the number of values.
      nonzeros: those that are not 0.0 before they are quantized.
      bytes_before: as the map came.
      bits: the name of each coder and the bits that it takes for all values.
    """

    path: str
    size: int
    nonzeros: int
    bytes_before: int
    bits: dict[str, float]

    @property
    def density(self) -> float:
        """Nonzeros / values."""
        return self.nonzeros / max(self.size, 1)

    def bits_per_value(self, coder: str) -> float:
        """Those of the coder of this name."""
        return self.bits[coder] / max(self.size, 1)

    def bytes_after(self, coder: str = STORED) -> int:
        """Whole bytes of the coder of this name, without head and checksum."""
        return -int(-self.bits[coder] // 8)


@dataclass(frozen=True)
class DensityReport:
    """All maps in order, quantized to so many bits each, and their total."""

    maps: tuple[MapDensity, ...]
    value_bits: int

    @property
    def total(self) -> MapDensity:
        """All maps together, each with the orders and tables that suit it."""
        names = self.maps[0].bits
        return MapDensity(
            "total",
            sum(own.size for own in self.maps),
            sum(own.nonzeros for own in self.maps),
            sum(own.bytes_before for own in self.maps),
            {name: sum(own.bits[name] for own in self.maps) for name in names},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, numbers and strings, for JSON."""
        as_dict = lambda own: {**asdict(own), "density": own.density}
        return {
            "maps": [as_dict(own) for own in self.maps],
            "total": as_dict(self.total),
            "value_bits": self.value_bits,
        }

    def __str__(self) -> str:
        """A table of 80 columns."""
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> text.Table:
        coders = list(self.maps[0].bits)
        stored = STORED if STORED in coders else coders[0]

        def cells(own: MapDensity) -> list[str]:
            rates = [f"{own.bits_per_value(name):.2f}" for name in coders]
            after = own.bytes_after(stored)
            return [f"{own.density:.1%}", *rates, f"{own.bytes_before:,}", f"{after:,}"]

        paths, note = text.shortened([own.path for own in self.maps])
        rows = [[path, *cells(own)] for path, own in zip(paths, self.maps, strict=True)]
        caption = (
            f"density = nonzeros / values before quantization; of each code the bits per value at "
            f"{self.value_bits} bits; bytes before = as the map came, after = {stored}"
        )
        columns = ["map", "density", *coders, "bytes before", "bytes after"]
        return text.Table(
            "Activation maps", columns, rows, ["total", *cells(self.total)], note + caption
        )


def density(maps: Any, *, bits: int = 16, coders: Sequence[Coder] | None = None) -> DensityReport:
    """How dense each map is, and the bits that it takes in several codes.

    Each map is quantized by its own maximum first, and each code has the order that suits the map.

    Args:
      maps: a tree of concrete post-ReLU maps, of `with_maps` or of linen's `sow`.
      bits: of a quantized value.
      coders: zero-value compression, exponential Golomb, sparse exponential Golomb, Golomb, Huffman
        and the entropy by default.

    Raises:
      ValueError: there is no map, or one is not behind a ReLU.
      TypeError: the maps are traced.

    Example:
      >>> report = sj.activations.density({"relu": jax.nn.relu(x)})
      >>> report.total.density
      1.0
    """
    found = leaves_with_paths(maps)
    if not found or (coders is not None and not coders):
        raise ValueError("density needs maps and coders, got none; take maps by with_maps or sow.")
    if any(isinstance(leaf, jax.core.Tracer) for _, leaf in found):
        raise TypeError("density needs concrete maps, got traced ones; return them from jax.jit.")
    if coders is None:
        golombs = (exponential_golomb(), sparse_exponential_golomb(), golomb())
        coders = (zero_value(), *golombs, huffman(), entropy())
    return DensityReport(tuple(_of_map(path, leaf, bits, coders) for path, leaf in found), bits)


def _of_map(path: str, leaf: Any, bits: int, coders: Sequence[Coder]) -> MapDensity:
    array = np.asarray(leaf)
    levels = np.asarray(quantize(leaf, bits=bits).levels)
    counted = {own.name: own.num_bits(levels.astype(np.int64), bits) for own in coders}
    return MapDensity(path, array.size, int(np.count_nonzero(array)), array.nbytes, counted)
