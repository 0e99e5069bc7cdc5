"""From dense to sparse, in training."""
