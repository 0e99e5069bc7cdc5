"""Masks without a training."""
