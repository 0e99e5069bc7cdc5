"""Models the experiments train, written as a user of flax writes them."""
