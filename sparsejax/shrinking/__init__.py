"""Networks made smaller: without their pruned channels, and with the function for that."""
