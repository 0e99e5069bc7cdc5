"""What shrinking saves, and what Torch-Pruning makes of the same networks."""
