"""Published results and the demo, reproduced with sparsejax."""
