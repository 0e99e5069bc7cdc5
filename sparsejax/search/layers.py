"""The layers of a function, as searches and models of devices look at them."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.doors import FUNCTION, check_examples, checked, tracing
from sparsejax.jaxprs import Labels, Site, find_sites, multiply_adds_of
from sparsejax.jaxprs.moves import uniform
from sparsejax.jaxprs.read import by_paths


class WeightLayer(NamedTuple):
    """A convolution or a matrix product with a leaf of the params, for one example.

    Attributes:
      path: of the leaf.
      inputs, outputs: channels of all groups together.
      window: positions of the kernel, 1 for a matrix product.
      stride: along the first axis of the image.
      groups: of channels that do not meet; `inputs` of them in a depthwise convolution.
      is_conv: else it is a matrix product.
      num_weights: of the leaf.
      multiply_adds: batch included, as are all below.
      input_size, output_size: numbers that go in besides the weights, and that come out.
    """

    path: str
    inputs: int
    outputs: int
    window: int
    stride: int
    groups: int
    is_conv: bool
    num_weights: int
    multiply_adds: int
    input_size: int
    output_size: int

    @property
    def is_depthwise(self) -> bool:
        """Does each channel have a kernel of its own?"""
        return self.groups == self.inputs > 1


@checked(apply_fn=FUNCTION)
def weight_layers(
    apply_fn: Callable[..., Any], params: Any, *example: Any
) -> tuple[WeightLayer, ...]:
    """The convolutions and matrix products with weights, in the order in which they run.

    Read from the jaxpr, as by `sj.multiply_adds`. A leaf that several products use is one layer, of
    their sums.

    Example:
      >>> layers = sj.search.weight_layers(model.apply, params, x)
      >>> [(layer.path, layer.inputs, layer.outputs, layer.multiply_adds) for layer in layers]
      [('body/kernel', 8, 4, 96), ('head/kernel', 4, 2, 24)]
    """
    check_examples("weight_layers", apply_fn, params, example)
    arrays, call = by_paths(apply_fn, params)
    with tracing("weight_layers"):
        closed = jax.make_jaxpr(call)(arrays, *example)
    found: dict[str, WeightLayer] = {}
    for own in layer_sites(closed, arrays):
        layer = _layer(own, math.prod(arrays[own.path].shape))
        found[own.path] = _together(found[own.path], layer) if own.path in found else layer
    return tuple(found.values())


class LayerSite(NamedTuple):
    """A product, the side of it that a leaf is on, and the leaf's path."""

    site: Site
    side: int
    path: str


def layer_sites(closed: Any, arrays: Mapping[str, Any]) -> list[LayerSite]:
    """The products that leaves take part in, of a jaxpr whose first inputs are these arrays."""
    labels = Labels(tuple(arrays), np.arange(len(arrays)) + 1, frozenset(arrays))
    own = [uniform(i + 1, tuple(array.shape)) for i, array in enumerate(arrays.values())]
    kinds = [*own, *[None] * (len(closed.jaxpr.invars) - len(own))]
    return [
        LayerSite(site, side, path)
        for site in find_sites(closed, kinds, labels).found
        for side, kind in enumerate(site.kinds)
        for path in labels.owners(kind.labels)
    ]


def _layer(own: LayerSite, num_weights: int) -> WeightLayer:
    site, side, path = own
    equation, params = site.equation, site.equation.params
    weights, data = (tuple(equation.invars[i].aval.shape) for i in (side, 1 - side))
    sizes = {
        "num_weights": num_weights,
        "multiply_adds": site.times * multiply_adds_of(equation),
        "input_size": site.times * math.prod(data),
        "output_size": site.times * math.prod(equation.outvars[0].aval.shape),
    }
    if equation.primitive.name == "conv_general_dilated":
        outputs, inputs, *window = params["dimension_numbers"].rhs_spec
        groups = params["feature_group_count"]
        return WeightLayer(
            path,
            weights[inputs] * groups,
            weights[outputs],
            math.prod(weights[axis] for axis in window),
            params["window_strides"][0] if window else 1,
            groups,
            True,
            **sizes,
        )
    if equation.primitive.name == "dot_general":
        contracted = math.prod(weights[axis] for axis in params["dimension_numbers"][0][side])
        batch = math.prod(weights[axis] for axis in params["dimension_numbers"][1][side])
        outputs = math.prod(weights) // max(contracted * batch, 1)
    else:
        contracted, outputs, batch = weights[-2] if len(weights) > 1 else 1, weights[-1], 1
    return WeightLayer(path, contracted, outputs, 1, 1, batch, False, **sizes)


def _together(first: WeightLayer, other: WeightLayer) -> WeightLayer:
    return first._replace(
        multiply_adds=first.multiply_adds + other.multiply_adds,
        input_size=first.input_size + other.input_size,
        output_size=first.output_size + other.output_size,
    )
