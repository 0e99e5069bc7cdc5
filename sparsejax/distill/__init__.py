"""Distillation of a large teacher into a small, masked student: `sj.distill`."""

from sparsejax.distill.losses import distillation_loss as distillation_loss
from sparsejax.distill.losses import dual_view_loss as dual_view_loss
from sparsejax.distill.losses import soft_cross_entropy as soft_cross_entropy
from sparsejax.distill.projector import CrossAttentionProjector as CrossAttentionProjector
from sparsejax.distill.scale_kd import FeatureLosses as FeatureLosses
from sparsejax.distill.scale_kd import ScaleKD as ScaleKD
