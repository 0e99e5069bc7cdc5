"""What models of example devices say of MobileNet-v1, and AMC's widths: no time is taken.

    python -m benchmarks.modelled --json FILE [--draw FILE.svg]

MobileNet-v1 1.0 of one image of 224 x 224. 80 % of the weights of its 1x1 convolutions go, each
kept group of outputs found by one index, at several bits. The devices are examples and no products.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import sparsejax as sj
from benchmarks import publish
from experiments.models.mobilenet_v1 import MobileNetV1Linen

DEVICES = (sj.search.example_mobile(), sj.search.example_fpga())
BITS, GROUPS, SPARSITY = (4, 8, 16, 32), (1, 4, 16), 0.8
POLICIES = {  # input channels of each layer but the first, as released with the paper
    "half of the FLOPs": (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752),
    "half of the time": (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680),
}


def network() -> tuple[Any, Any, Any]:
    model, image = MobileNetV1Linen(), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    return model.apply, jax.eval_shape(model.init, jax.random.key(0), image), image


def frames(
    device: sj.search.DeviceModel, layers: Sequence[sj.search.WeightLayer], bits: int, group: int
) -> sj.search.Modelled:
    """Of the network with groups of so many weights; 0 for the dense one."""
    total = sj.search.Modelled(device.name, 0.0, 0.0)
    for layer in layers:
        pruned = group and layer.path.endswith("pointwise/kernel")
        options = {"density": 1 - SPARSITY, "group_size": group} if pruned else {}
        total = total + device.layer(layer, weight_bits=bits, input_bits=bits, **options)
    return total


def measure() -> dict[str, Any]:
    layers = sj.search.weight_layers(*network())
    costs = sj.search.width_costs(*network())
    names = [group.name for group in costs.groups.prunable]
    sizes = [group.size for group in costs.groups.prunable]
    count = lambda widths: costs.multiply_adds(dict(zip(names, widths, strict=True)))
    return {
        "policies": {
            name: {
                "kept": [own / size for own, size in zip(widths, sizes, strict=True)],
                "multiply_adds": count(widths),
            }
            for name, widths in POLICIES.items()
        },
        "modelled": {
            device.name: {
                f"{bits} bits, {'dense' if not group else f'groups of {group}'}": [
                    1e3 * own for own in frames(device, layers, bits, group)[1:]
                ]
                for group in (0, *GROUPS)
                for bits in BITS
            }
            for device in DEVICES
        },
    }


def draw(results: dict[str, Any], file: str) -> None:
    """Kept channels of the released policies, and modelled joules by bits."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "modelled"
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, *others = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    for name, own in results["policies"].items():
        adds = own["multiply_adds"] / 1e6
        left.plot([100 * kept for kept in own["kept"]], ".-", label=f"{name}: {adds:.1f} M")
    left.set_title("AMC's released MobileNet-v1:\nchannels kept by each group, %", fontsize=9)
    left.set_ylim(0, 100)
    for axis, (device, own) in zip(others, results["modelled"].items(), strict=True):
        for kind in dict.fromkeys(name.partition(", ")[2] for name in own):
            joules = [own[f"{bits} bits, {kind}"][1] for bits in BITS]
            axis.plot(range(len(BITS)), joules, ".-", label=kind)
        axis.set_xticks(range(len(BITS)), [f"{bits}" for bits in BITS])
        axis.set_title(f"{device}: mJ a frame by bits,\nmodelled, not measured", fontsize=9)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
    left.set_xticks(range(0, 14, 2))
    left.legend(fontsize=7, loc="lower right")
    others[1].legend(fontsize=7)
    for axis in (left, *others):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--draw", help="file for the picture")
    options = parser.parse_args()
    results = measure()
    for device, own in results["modelled"].items():
        for name, (ms, mj) in own.items():
            print(f"{device:15} {name:24} {ms:8.2f} ms {mj:8.2f} mJ (modelled)")
    if options.draw:
        draw(results, options.draw)
    publish(results, options.json)


if __name__ == "__main__":
    main()
