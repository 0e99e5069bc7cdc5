"""Small weights that stay exactly zero where they are pruned."""
