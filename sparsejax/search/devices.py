"""Models of devices: a roofline and an energy for each operation. What they say is not measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsejax.search.bits import BitTable
from sparsejax.search.layers import WeightLayer

POWERCAP = Path("/sys/class/powercap")
INDEX_BYTES = 2


class Modelled(NamedTuple):
    """What a model says of a frame; printed, it says whose model it is.

    Attributes:
      device: the model's name.
      seconds, joules: of one frame.
    """

    device: str
    seconds: float
    joules: float

    @property
    def frames_per_joule(self) -> float:
        """Also frames a second for each watt."""
        return 1.0 / self.joules

    def __add__(self, other: "Modelled") -> "Modelled":  # type: ignore[override]
        """Of one layer after the other."""
        return Modelled(self.device, self.seconds + other.seconds, self.joules + other.joules)

    def __str__(self) -> str:
        return f"{1e3 * self.seconds:.3g} ms, {1e3 * self.joules:.3g} mJ (modelled: {self.device})"


@dataclass(frozen=True)
class DeviceModel:
    """A device as a roofline and an energy for each operation.

    A layer takes the longer of its multiply-adds at the device's peak and of its bytes at the
    memory's; its energy is that of both and the idle power for that time. Weights come from memory
    once a frame, maps only where they do not fit on the chip.

    Attributes:
      name: printed with whatever it says.
      multiply_adds_per_second: at each number of bits there is hardware for; numbers between are
        computed by the next wider.
      bytes_per_second: of the memory.
      onchip_bytes: what a layer's maps may take without going there.
      multiply_add_joules: at each number of bits.
      byte_joules: of a byte from memory.
      idle_watts: while a frame runs, whatever it does.
      group_overhead: what finding one kept group of weights costs, in multiply-adds.
    """

    name: str
    multiply_adds_per_second: Mapping[int, float]
    bytes_per_second: float
    onchip_bytes: float
    multiply_add_joules: Mapping[int, float]
    byte_joules: float
    idle_watts: float
    group_overhead: float

    def layer(
        self,
        layer: WeightLayer,
        *,
        weight_bits: int = 32,
        input_bits: int = 32,
        density: float = 1.0,
        group_size: int = 0,
    ) -> Modelled:
        """What a layer takes.

        Args:
          layer: of `weight_layers`, for one frame.
          weight_bits, input_bits: of its numbers; products are computed at the larger.
          density: the fraction of the weights that is kept.
          group_size: how many kept weights one index finds; 0 for a dense layer, without indices.

        Raises:
          ValueError: there is no hardware for so many bits.
        """
        bits = self._bits(max(weight_bits, input_bits))
        kept = density * layer.num_weights
        adds = density * layer.multiply_adds
        slots = adds * (1.0 + (self.group_overhead / group_size if group_size else 0.0))
        num_bytes = kept * weight_bits / 8 + (kept / group_size * INDEX_BYTES if group_size else 0)
        maps = (layer.input_size + layer.output_size) * input_bits / 8
        num_bytes += maps if maps > self.onchip_bytes else 0.0
        seconds = max(
            slots / self.multiply_adds_per_second[bits], num_bytes / self.bytes_per_second
        )
        joules = slots * self.multiply_add_joules[bits] + num_bytes * self.byte_joules
        return Modelled(self.name, seconds, joules + self.idle_watts * seconds)

    def network(self, layers: Sequence[WeightLayer], **options: float) -> Modelled:
        """What layers take one after the other, all with the same options of `layer`."""
        total = Modelled(self.name, 0.0, 0.0)
        for layer in layers:
            total = total + self.layer(layer, **options)  # type: ignore[arg-type]
        return total

    def bit_table(self, layers: Sequence[WeightLayer], *, high: int = 8) -> BitTable:
        """Modelled milliseconds of each layer at all bits up to `high`, for `bit_search`."""
        each = range(1, high + 1)
        milliseconds = {
            layer.path: np.array(
                [
                    [1e3 * self.layer(layer, weight_bits=w, input_bits=a).seconds for a in each]
                    for w in each
                ]
            )
            for layer in layers
        }
        return BitTable(milliseconds, f"modelled by {self.name}")

    def _bits(self, wanted: int) -> int:
        wide = [bits for bits in self.multiply_adds_per_second if bits >= wanted]
        if not wide:
            known = ", ".join(map(str, self.multiply_adds_per_second))
            raise ValueError(f"{self.name} computes at {known} bits, got {wanted}.")
        return min(wide)


# An operation in a 45 nm process: multiplication and addition of Horowitz, "Computing's energy
# problem", ISSCC 2014, from memory; those of 4 bits are ours, by the square of the width.
JOULES = {4: 0.065e-12, 8: 0.23e-12, 16: 1.5e-12, 32: 4.6e-12}
BYTE_JOULES = 160e-12


def example_mobile() -> DeviceModel:
    """An example, of no real device: a phone's processor with fast memory and costly indices.

    Example:
      >>> layers = sj.search.weight_layers(model.apply, params, x)
      >>> print(sj.search.example_mobile().network(layers, weight_bits=8, input_bits=8))
      1e-05 ms, 1.14e-05 mJ (modelled: example_mobile)
    """
    return DeviceModel(
        name="example_mobile",
        multiply_adds_per_second={8: 4e10, 16: 2e10, 32: 1e10},
        bytes_per_second=4e9,
        onchip_bytes=1e6,
        multiply_add_joules=JOULES,
        byte_joules=BYTE_JOULES,
        idle_watts=0.5,
        group_overhead=4.0,
    )


def example_fpga() -> DeviceModel:
    """An example, of no real device: narrow arithmetic is fast, memory slow, indices are cheap."""
    return DeviceModel(
        name="example_fpga",
        multiply_adds_per_second={4: 8e10, 8: 2e10, 16: 5e9, 32: 6e8},
        bytes_per_second=1e9,
        onchip_bytes=5e5,
        multiply_add_joules=JOULES,
        byte_joules=BYTE_JOULES,
        idle_watts=0.2,
        group_overhead=0.5,
    )


class Energy(NamedTuple):
    """Joules by this machine's counters, or None where they cannot be read."""

    joules: float | None

    def __str__(self) -> str:
        return "not measured" if self.joules is None else f"{self.joules:.4g} J"


def measured_energy(run: Callable[[], object], *, counters: str | Path = POWERCAP) -> Energy:
    """What the processor's packages took while a function ran, all other processes included.

    Args:
      run: called once; it has to wait for its own results.
      counters: a folder of `intel-rapl:*` with `energy_uj`, which Linux lets root read.

    Example:
      >>> print(sj.search.measured_energy(lambda: None, counters="/nowhere"))
      not measured
    """
    before = _counted(Path(counters))
    run()
    after = _counted(Path(counters))
    if not before or before.keys() != after.keys():
        return Energy(None)
    rose = [
        (after[own][0] - begun) % (most + 1) if after[own][0] < begun else after[own][0] - begun
        for own, (begun, most) in before.items()
    ]
    return Energy(sum(rose) / 1e6)


def _counted(folder: Path) -> dict[str, tuple[int, int]]:
    """Each package's counter and the number at which it starts anew."""
    try:
        return {
            own.name: (
                int((own / "energy_uj").read_text()),
                int((own / "max_energy_range_uj").read_text()),
            )
            for own in sorted(folder.glob("intel-rapl:[0-9]"))
        }
    except OSError:
        return {}
