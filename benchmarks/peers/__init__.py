"""Whole networks and layers against other CPU engines, which run the same weights side by side."""
