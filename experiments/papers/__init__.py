"""The papers whose tables we run, a file each; experiments/papers/suite.py says how to add one."""
