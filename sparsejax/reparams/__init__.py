"""Reparametrisations: what a forward pass uses in place of the raw weights."""
