"""The networks of the experiments: as large as their papers say, and the same in linen and NNX."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models.efficientnet_b0 import EfficientNetB0, EfficientNetB0Linen
from experiments.models.mobilenet_v2 import MobileNetV2, MobileNetV2Linen
from experiments.models.resnet import ResNet18, ResNet18Linen, ResNet50, ResNet50Linen
from experiments.models.vgg import VGG16, VGG16Linen

IMAGES = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
# linen, NNX, parameters with those of batch norm, million multiply-adds at 224x224
NETWORKS = {
    "mobilenet_v2": (MobileNetV2Linen, MobileNetV2, 3_504_872, 300.77),
    "efficientnet_b0": (EfficientNetB0Linen, EfficientNetB0, 5_288_548, 385.81),
    "resnet18": (ResNet18Linen, ResNet18, 11_689_512, 1814.07),
    "resnet50": (ResNet50Linen, ResNet50, 25_557_032, 4089.18),
    "vgg16": (VGG16Linen, VGG16, 138_357_544, 15470.26),
}


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def variables(name):
    return jax.eval_shape(NETWORKS[name][0]().init, jax.random.key(0), IMAGES)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_parameters_of_their_papers(name):
    _, module, parameters, _ = NETWORKS[name]
    assert size(variables(name)["params"]) == parameters
    model = nnx.eval_shape(lambda: module(rngs=nnx.Rngs(0)))
    assert size(nnx.state(model, nnx.Param)) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_the_multiply_adds_of_their_papers(name):
    linen, *_, millions = NETWORKS[name]
    counts = sj.multiply_adds(linen().apply, variables(name), IMAGES)
    assert sum(counts.values()) / 1e6 == pytest.approx(millions, abs=0.005)
