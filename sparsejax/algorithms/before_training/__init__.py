"""Masks before the first step."""
