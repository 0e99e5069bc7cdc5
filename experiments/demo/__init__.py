"""The main job on real data: `python -m experiments.demo`."""
