"""The bridge to Keras: a sparsified optax transform as the optimizer of `model.compile`."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.training.opt_states import SparsifyState


def keras_params(model: Any) -> dict[str, Any]:
    """The trainable weights of a Keras model by their paths, such as "sequential/dense/kernel".

    Plans are made of them, and `report`, `check` and `harden` take them together with
    `model.optimizer.opt_state`.

    Raises:
      ValueError: two weights have one path.
    """
    return _by_path(model.trainable_variables, [v.value for v in model.trainable_variables])


def KerasOptimizer(tx: optax.GradientTransformation) -> Any:
    """A Keras optimizer for `model.compile` that is an optax transform, sparsified or not.

    The params that `tx` sees are those of `keras_params`. The learning rate is that of `tx`;
    gradients are accumulated, clipped and averaged by optax transforms, not by Keras. Its property
    `opt_state` is the state of `tx`. Masks must be hard: Keras computes the loss at the weights
    themselves, so that soft masks and quantizers need a loop of your own. Load a saved model by
    `keras.models.load_model(file, compile=False)`, since Keras can't save `tx`.

    Raises:
      ImportError: Keras is not installed.
      ValueError: Keras does not run on JAX; when it is built, `tx` has forward weights of its own.

    Reference: https://keras.io/api/optimizers
    """
    return _optimizer_class()(tx)


@functools.cache
def _optimizer_class() -> type:
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            "KerasOptimizer needs Keras, which is not installed: pip install keras."
        ) from error
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"KerasOptimizer needs Keras on JAX, it runs on {keras.backend.backend()}; set "
            "KERAS_BACKEND=jax in the environment before keras is imported."
        )

    # Keras wants a subclass: `fit` traces these two methods.
    class SparseOptimizer(keras.optimizers.Optimizer):
        """An optax transform whose state lies in Keras variables, leaf by leaf."""

        def __init__(self, tx: optax.GradientTransformation) -> None:
            super().__init__(learning_rate=0.0, name="sparse_optimizer")
            # In a namespace: Keras would wrap the tuples that these are.
            self._own = SimpleNamespace(tx=tx, structure=None, leaves=[])

        def build(self, variables: Sequence[Any]) -> None:
            """Makes the state's variables."""
            if self.built:
                return
            super().build(variables)
            state = self._own.tx.init(_by_path(variables, [v.value for v in variables]))
            _check_hard(state)
            leaves, self._own.structure = jax.tree.flatten(state)
            for index, leaf in enumerate(map(jnp.asarray, leaves)):
                name = f"optax_{index}"
                own = keras.Variable(leaf, trainable=False, dtype=str(leaf.dtype), name=name)
                self._track_variable(own)
                self._own.leaves.append(own)

        @property
        def opt_state(self) -> Any:
            """The state of the transform."""
            values = [own.value for own in self._own.leaves]
            return jax.tree.unflatten(self._own.structure, values)

        def _backend_update_step(self, grads: Any, trainable_variables: Any, rate: Any) -> None:
            given = {v.path: grad for v, grad in zip(trainable_variables, grads, strict=True)}
            variables = self._trainable_variables
            params = _by_path(variables, [v.value for v in variables])
            # Keras leaves out what the loss does not reach.
            full = {path: given.get(path, jnp.zeros_like(own)) for path, own in params.items()}
            updates, state = self._own.tx.update(full, self.opt_state, params)
            after = optax.apply_updates(params, updates)
            for variable in variables:
                variable.assign(after[variable.path])
            for own, leaf in zip(self._own.leaves, jax.tree.leaves(state), strict=True):
                own.assign(leaf)

    return SparseOptimizer


def _by_path(variables: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    paths = [variable.path for variable in variables]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise ValueError(
            f"keras_params needs weights with paths of their own, {twice[0]} comes twice; give the "
            "layers different names."
        )
    return dict(zip(paths, values, strict=True))


def _check_hard(state: Any) -> None:
    is_state = lambda node: isinstance(node, SparsifyState)
    found = [node for node in jax.tree.leaves(state, is_leaf=is_state) if is_state(node)]
    if any(node.reparam.reparam is not None for node in found):
        raise ValueError(
            "KerasOptimizer needs a method with hard masks, got one with forward weights of its "
            "own, at which Keras would not compute the loss; use gmp or rigl, say, or write the "
            "loop with model.stateless_call(sj.forward(params, opt_state), ...)."
        )
