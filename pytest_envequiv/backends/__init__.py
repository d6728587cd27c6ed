"""Backends: one side of the comparison, opened from a name."""
