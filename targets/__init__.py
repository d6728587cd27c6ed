"""Ports of real environments, each with its unmodified reference beside it: ``targets.<name>.reference``."""
