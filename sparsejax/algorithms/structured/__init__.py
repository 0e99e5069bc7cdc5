"""Patterns for hardware, and trainings towards them."""
