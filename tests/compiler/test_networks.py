"""compile on the networks of the experiments and on encoders: regions as large as can be."""

import functools
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax as sj
from experiments.models.efficientnet_b0 import EfficientNetB0, EfficientNetB0Linen
from experiments.models.mobilenet_v1 import MobileNetV1, MobileNetV1Linen
from experiments.models.mobilenet_v2 import MobileNetV2, MobileNetV2Linen
from experiments.models.resnet import ResNet18, ResNet18Linen, ResNet50, ResNet50Linen
from experiments.models.vgg import VGG16, VGG16Linen
from tests.compiler.encoders import Encoder, EncoderLinen, Mixer, VisionTransformer
from tests.compiler.graphs import assert_close, kinds, regions, rewritten, stepwise

IMAGES = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (2, 12)))
# linen, NNX, options of NNX, kinds of node
NETWORKS = {
    "mobilenet_v1": (MobileNetV1Linen, MobileNetV1, {}, {"Conv": 27, "Mean": 1, "Linear": 1}),
    "mobilenet_v2": (MobileNetV2Linen, MobileNetV2, {}, {"Conv": 52, "Mean": 1, "Linear": 1}),
    "efficientnet_b0": (
        EfficientNetB0Linen,
        EfficientNetB0,
        {},
        {"Conv": 81, "Mean": 17, "Elementwise": 16, "Linear": 1},
    ),
    "resnet18": (ResNet18Linen, ResNet18, {}, {"Conv": 20, "Pool": 1, "Mean": 1, "Linear": 1}),
    "resnet50": (ResNet50Linen, ResNet50, {}, {"Conv": 53, "Pool": 1, "Mean": 1, "Linear": 1}),
    "vgg16": (
        VGG16Linen,
        VGG16,
        {"image_size": 32},
        {"Conv": 13, "Pool": 5, "Reshape": 1, "Linear": 3},
    ),
}


def drawn(shapes):
    """Variables of these shapes with batch norms that do something."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path.endswith(("scale", "var")):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        if len(leaf.shape) < 2:
            return jnp.asarray(rng.normal(0, 0.2, leaf.shape), leaf.dtype)
        deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return jnp.asarray(rng.normal(0, deviation, leaf.shape), leaf.dtype)

    return sj.tree.map_with_paths(draw, shapes)


def linen(model, *inputs):
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), *inputs))
    return model.apply, variables


def of_nnx(module, **options):
    def make():
        model = module(rngs=nnx.Rngs(0), **options)
        model.eval()
        return model

    structure, shapes = nnx.split(nnx.eval_shape(make))
    return lambda state, *x: nnx.merge(structure, state)(*x), drawn(shapes)


@functools.cache
def network(name, frontend):
    in_linen, in_nnx, options, _ = NETWORKS[name]
    small = {"width": 0.125, "num_classes": 10}
    if frontend == "linen":
        return linen(in_linen(**small), IMAGES)
    return of_nnx(in_nnx, **small, **options)


@functools.cache
def graph_of(name, frontend):
    return rewritten(*network(name, frontend), IMAGES)


@pytest.mark.parametrize("frontend", ["linen", "nnx"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_one_region_with_nothing_left(name, frontend):
    graph = graph_of(name, frontend)
    (region,) = regions(graph)
    assert graph.left == {} and len(region.nodes) == len(graph.nodes)
    assert Counter(type(node.op).__name__ for node in graph.nodes) == NETWORKS[name][3]


@pytest.mark.parametrize("name", NETWORKS)
def test_linen_and_nnx_give_the_same_nodes(name):
    assert kinds(graph_of(name, "linen")) == kinds(graph_of(name, "nnx"))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_right(name):
    apply_fn, params = network(name, "linen")
    fast = sj.compile(apply_fn, params, IMAGES, tune=False)
    assert_close(fast(IMAGES), jax.jit(apply_fn)(params, IMAGES))


@functools.cache
def encoder(frontend):
    return linen(EncoderLinen(), IDS) if frontend == "linen" else of_nnx(Encoder)


@pytest.mark.parametrize("frontend", ["linen", "nnx"])
def test_the_layers_of_an_encoder_are_one_region(frontend):
    apply_fn, params = encoder(frontend)
    graph = rewritten(apply_fn, params, IDS)
    layer = ["Linear"] * 3 + ["Attention", "Linear + x", "Norm", "Linear + gelu_tanh"]
    layer += ["Linear + x", "Norm"]
    expected = [["Norm", *layer, *layer], ["Linear + tanh", "Linear"]]
    assert [kinds(region) for region in regions(graph)] == expected
    assert "dot_general" not in graph.left
    assert_close(stepwise(graph)(IDS)[0], jax.jit(apply_fn)(params, IDS))


@pytest.mark.parametrize(("model", "batch"), [(VisionTransformer(), 3), (Mixer(), 1)])
def test_images_as_sequences_are_one_region(model, batch, tmp_path):
    x = jax.random.normal(jax.random.key(1), (batch, 18, 14, 3))
    apply_fn, params = linen(model, x)
    graph = rewritten(apply_fn, params, x)
    (region,) = regions(graph)
    assert graph.left == {} and not region.rows
    fast = sj.compile(apply_fn, params, x, tune=False)
    expected = jax.jit(apply_fn)(params, x)
    assert_close(fast(x), expected)
    sj.save(fast, tmp_path / "model.safetensors")
    assert_close(sj.load(tmp_path / "model.safetensors")(x), expected)


class Step(nn.Module):
    """One step of a GRU."""

    @nn.compact
    def __call__(self, state, x):
        return nn.GRUCell(8)(state, x)[1]


class Sequence(nn.Module):
    """A GRU over a sequence."""

    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.GRUCell(8))(x)


STATE, STEP = jax.random.normal(jax.random.key(1), (3, 8)), jnp.ones((3, 5)) / 3


@pytest.mark.parametrize("frontend", ["linen", "nnx"])
def test_a_step_of_a_gru_is_one_region(frontend):
    if frontend == "linen":
        apply_fn, params = linen(Step(), STATE, STEP)
    else:
        apply_fn, params = of_nnx(lambda rngs: nnx.GRUCell(5, 8, rngs=rngs))
    graph = rewritten(apply_fn, params, STATE, STEP)
    (region,) = regions(graph)
    assert graph.left == {} and region.rows
    outputs = jax.tree.leaves(jax.jit(apply_fn)(params, STATE, STEP))
    assert_close(stepwise(graph)(STATE, STEP)[0], outputs[0])


def test_a_gru_over_a_sequence_is_unrolled():
    x = jax.random.normal(jax.random.key(2), (2, 4, 5))
    apply_fn, params = linen(Sequence(), x)
    graph = rewritten(apply_fn, params, x)
    assert len(regions(graph)) == 1 and "dot_general" not in graph.left
    assert_close(stepwise(graph)(x)[0], jax.jit(apply_fn)(params, x))
