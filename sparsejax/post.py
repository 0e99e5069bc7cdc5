"""After training: masks and corrections from a trained network and a few batches of its inputs."""

from sparsejax.algorithms.post_training.exact_obs import exact_obs as exact_obs
from sparsejax.algorithms.post_training.exact_obs import obs_correct as obs_correct
from sparsejax.algorithms.post_training.sparse_gpt import sparse_gpt as sparse_gpt
from sparsejax.algorithms.post_training.wanda import wanda as wanda
from sparsejax.jaxprs.calibrate import LayerInputs as LayerInputs
from sparsejax.jaxprs.calibrate import calibrate as calibrate
