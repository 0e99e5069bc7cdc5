"""Keras models train with a sparsified optimizer, by the names of their layers."""

import os

import jax
import numpy as np
import optax
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="keras is not installed")

import sparsejax as sj  # noqa: E402

if keras.backend.backend() != "jax":
    pytest.skip("keras does not run on JAX here", allow_module_level=True)


def build():
    layers = [
        keras.Input((8,)),
        keras.layers.Dense(16, activation="relu", name="body"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(4, name="head"),
    ]
    keras.utils.set_random_seed(0)
    return keras.Sequential(layers, name="network")


def sparsified(model, method):
    params = sj.training.keras_params(model)
    plan = sj.plan(params, {"body/kernel": sj.Unstructured()}, sparsity=0.75)
    return plan, sj.sparsify(optax.adam(0.02), method, plan, key=jax.random.key(0))


def test_keras_fit_trains_sparse():
    model = build()
    plan, tx = sparsified(model, sj.gmp(1, 6, every=2))
    assert [leaf.path for leaf in plan.leaves] == ["network/body/kernel"]
    model.compile(optimizer=sj.training.KerasOptimizer(tx), loss="mse")
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    history = model.fit(x, x[:, :4], batch_size=8, epochs=4, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    kernel = np.asarray(model.get_layer("body").kernel)
    params, opt_state = sj.training.keras_params(model), model.optimizer.opt_state
    assert np.sum(kernel == 0.0) == plan.num_pruned
    assert int(opt_state.step) == 16 and sj.check(params, opt_state)
    assert sj.report(params, plan, opt_state).planned.sparsity == 0.75
    np.testing.assert_array_equal(
        ~np.asarray(sj.masks_of(opt_state)["network/body/kernel"]), kernel == 0.0
    )


def test_soft_methods_and_equal_paths_are_refused():
    model = build()
    _, tx = sparsified(model, sj.soft.sr_ste())
    with pytest.raises(ValueError, match="KerasOptimizer needs a method with hard masks"):
        sj.training.KerasOptimizer(tx).build(model.trainable_variables)
    with pytest.raises(ValueError, match="network/body/kernel comes twice"):
        sj.training.KerasOptimizer(tx).build([model.trainable_variables[0]] * 2)
