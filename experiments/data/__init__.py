"""Data sets, checked by hash, and batches of them."""
