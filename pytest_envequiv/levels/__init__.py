"""The four levels of checks."""
