"""The widths of a traced function: which positions of its axes go together, and less of them."""
