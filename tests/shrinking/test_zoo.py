"""Families of networks: 30 and 50 % of their channels go, and the rest gives what it gave."""

from functools import partial

import jax
import numpy as np
import pytest

import sparsejax as sj
from experiments.models.mobilenet_v1 import MobileNetV1Linen
from tests.shrinking import zoo_equinox, zoo_linen, zoo_nnx
from tests.shrinking.networks import distance, drawn, filled, masked

ZOOS = (zoo_linen, zoo_nnx, zoo_equinox)
NETWORKS = {name: (zoo.built, name) for zoo in ZOOS for name in zoo.MODELS}


def inputs(example):
    draw = lambda s: (
        np.random.default_rng(0).integers(0, 2, s.shape)
        if np.issubdtype(s.dtype, np.integer)
        else np.random.default_rng(0).normal(size=s.shape).astype(np.float32)
    )
    return jax.tree.map(draw, example)


# How many groups can lose channels; a decoder's or encoder's layer has heads and two widths.
PRUNABLE = {
    "MobileNet-v1": 4,
    "MobileNet-v2": 6,
    "MobileNet-v3": 9,
    "EfficientNet": 9,
    "ResNet": 5,
    "ResNeXt": 11,
    "DenseNet": 15,
    "SqueezeNet": 7,
    "ShuffleNet-v2": 6,
    "VGG": 5,
    "U-Net": 9,
    "ConvNeXt": 3,
    "BERT": 10,
    "GRU": 3,
    "LSTM": 3,
    "MLP-Mixer": 4,
    "ViT": 9,
    "decoder": 9,
    "pyramid": 4,
    "Swin": 8,
    "generator": 3,
    "autoencoder": 5,
    "super-resolution": 2,
    "two inputs": 3,
    "scanned layers": 5,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_family_shrinks_to_what_it_is_masked(name):
    build, which = NETWORKS[name]
    apply, shapes, example = build(which)
    params, x = filled(shapes), inputs(example)
    groups = sj.channel_groups(apply, params, *x)
    assert len(groups.prunable) == PRUNABLE[name]
    run = jax.jit(apply)
    num_params = [num_weights(params)]
    for fraction in (0.3, 0.5):
        keep = drawn(groups, fraction)
        small = sj.shrink(apply, params, *x, keep=keep)
        want = run(masked(groups, params, keep), *x)
        assert distance(small.apply(small.params, *x), want) < 1e-5
        num_params.append(num_weights(small.params))
    assert num_params[0] > 1.2 * num_params[1] > 1.2**2 * num_params[2]


def num_weights(params):
    return sum(np.size(leaf) for leaf in jax.tree.leaves(params) if hasattr(leaf, "shape"))


def test_half_of_mobilenet_v1_is_the_published_network_of_half_width():
    model, x = MobileNetV1Linen(), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    apply = partial(model.apply, train=False)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    groups = sj.channel_groups(apply, shapes, x)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    scores = sj.channel_scores(groups, params, sj.before.flow_magnitude())
    keep = sj.structured.best_channels(groups, scores, 0.5)
    small = sj.shrink(apply, params, x, keep=keep)
    assert sum(sj.multiply_adds(small.apply, small.params, x).values()) == 149_497_088
