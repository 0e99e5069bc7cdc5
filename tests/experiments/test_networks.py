"""The networks for small images, and MobileNets by width: as large as their papers say."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models import networks
from experiments.models.mobilenet_v1 import MobileNetV1, MobileNetV1Linen
from experiments.models.mobilenet_v2 import MobileNetV2Linen
from experiments.models.resnet_small import SmallResNet, WideResNet
from experiments.models.vgg13 import VGG13
from experiments.settings.train import take_apart

# The paper's parameters in millions, the exact count, multiply-adds at 32x32 worked by hand:
# a 3x3 convolution of ResNet-20 is 32 * 32 * 9 * 16 * 16 = 2,359,296, the first of a stage half.
SMALL = {
    "resnet20": (partial(SmallResNet, 20), 0.27, 269_722, 442_368 + 17 * 2_359_296 + 640),
    "resnet32": (partial(SmallResNet, 32), 0.46, 464_154, 442_368 + 29 * 2_359_296 + 640),
    "wrn_22_8": (partial(WideResNet, 22, 8), 17.2, None, None),
    "wrn_28_8": (partial(WideResNet, 28, 8), 23.4, None, None),
    "wrn_28_10": (partial(WideResNet, 28, 10), 36.5, None, None),
    "vgg13": (VGG13, 9.4, None, 1_769_472 + 4 * (37_748_736 + 18_874_368) + 5_120),
}


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_have_the_parameters_of_their_papers(name):
    make, millions, exact, _ = SMALL[name]
    parameters = size(nnx.state(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))), nnx.Param))
    digits = len(str(millions).partition(".")[2])
    assert round(parameters / 1e6, digits) == millions
    assert exact in (None, parameters)


@pytest.mark.parametrize("name", [name for name in SMALL if SMALL[name][3]])
def test_small_networks_have_the_multiply_adds_of_a_count_by_hand(name):
    make, *_, multiply_adds = SMALL[name]
    network = nnx.eval_shape(lambda: take_apart(make(rngs=nnx.Rngs(0))))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    counts = sj.multiply_adds(network.apply, (network.params, network.statistics), images)
    assert sum(counts.values()) == multiply_adds


@pytest.mark.parametrize(
    ("linen", "millions"),
    [
        (MobileNetV1Linen(), 568.740352),
        (MobileNetV1Linen(width=0.75), 325.40),
        (MobileNetV1Linen(width=0.5), 149.50),
        (MobileNetV2Linen(), 300.774272),
    ],
)
def test_mobilenets_have_the_multiply_adds_of_their_widths(linen, millions):
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(linen.init, jax.random.key(0), images)
    counts = sj.multiply_adds(linen.apply, variables, images)
    assert sum(counts.values()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_mobilenet_v1_has_the_prunable_weights_of_global_mp():
    """Gupta et al., arXiv:2209.14624: the minimum threshold of 0.2 % leaves small layers dense."""
    params = nnx.state(nnx.eval_shape(lambda: MobileNetV1(rngs=nnx.Rngs(0))), nnx.Param)
    sizes = {
        path: math.prod(leaf.shape)
        for path, leaf in sj.tree.leaves_with_paths(params)
        if path.endswith("kernel")
    }
    of = lambda name: sum(size for path, size in sizes.items() if name in path)
    assert (of("pointwise"), of("depthwise"), of("stem")) == (3_139_584, 44_640, 864)
    assert of("head") == 1_024_000 and sum(sizes.values()) == 4_209_088
    biases = 1000
    assert sum(sizes.values()) + biases == 4_210_088
    floor = int(0.002 * sum(sizes.values()))
    assert floor == 8_418
    dense = {path for path, size in sizes.items() if size < floor}
    assert dense == {
        "stem/kernel",
        "blocks/0/pointwise/kernel",
        "blocks/1/pointwise/kernel",
        *(f"blocks/{i}/depthwise/kernel" for i in range(12)),
    }


@pytest.mark.parametrize("make", [networks.resnet20, networks.vgg13_quarter])
def test_networks_learn_from_grey_images_of_any_size(make):
    model = make((14, 14, 1), 10, 0)
    images = np.random.default_rng(0).standard_normal((4, 14, 14, 1)).astype(np.float32)
    apply = nnx.jit(lambda model, images: model(images))
    logits = apply(model, images)
    assert logits.shape == (4, 10) and bool(jnp.isfinite(logits).all())


def test_wide_networks_run():
    model = WideResNet(10, 1, in_channels=1, rngs=nnx.Rngs(0))
    assert nnx.jit(lambda m, x: m(x))(model, jnp.ones((2, 8, 8, 1))).shape == (2, 10)
