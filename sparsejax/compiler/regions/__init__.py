"""The largest groups of nodes that can each run as one call."""
