"""Measured proof that the verifier catches what it should: mutants of a target, and what becomes of them."""
