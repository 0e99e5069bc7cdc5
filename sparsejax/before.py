"""Before training: masks from an untrained network."""

from sparsejax.algorithms.before_training.gradient_flow import FlowMeasure as FlowMeasure
from sparsejax.algorithms.before_training.gradient_flow import flow_biased_loss as flow_biased_loss
from sparsejax.algorithms.before_training.gradient_flow import (
    flow_gradient_norm as flow_gradient_norm,
)
from sparsejax.algorithms.before_training.gradient_flow import (
    flow_gradient_preserving as flow_gradient_preserving,
)
from sparsejax.algorithms.before_training.gradient_flow import flow_loss as flow_loss
from sparsejax.algorithms.before_training.gradient_flow import flow_magnitude as flow_magnitude
from sparsejax.algorithms.before_training.gradient_flow import gradient_flow as gradient_flow
from sparsejax.algorithms.before_training.grasp import grasp as grasp
from sparsejax.algorithms.before_training.snip import snip as snip
from sparsejax.algorithms.before_training.synflow import synflow as synflow
