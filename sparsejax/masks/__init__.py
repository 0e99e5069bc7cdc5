"""Masks: transforms of them, scores, schedules, and those that a training begins with."""

from sparsejax.masks.initial import full_masks as full_masks
from sparsejax.masks.initial import masks_from_scores as masks_from_scores
from sparsejax.masks.initial import masks_from_zeros as masks_from_zeros
from sparsejax.masks.transforms import MaskContext as MaskContext
from sparsejax.masks.transforms import MaskTransform as MaskTransform
from sparsejax.masks.transforms import Method as Method
