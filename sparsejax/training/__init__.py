"""The bridge to optax, what its state says, and checkpoints."""

from sparsejax.training.checkpoints import Checkpoints as Checkpoints
from sparsejax.training.keras_bridge import KerasOptimizer as KerasOptimizer
from sparsejax.training.keras_bridge import keras_params as keras_params
from sparsejax.training.opt_states import SparsifyState as SparsifyState
from sparsejax.training.second_moments import averaged_moments as averaged_moments
from sparsejax.training.second_moments import decaying_moments as decaying_moments
from sparsejax.training.second_moments import zeroed_moments as zeroed_moments
