"""The engine without a model: small edits, tried on saved transitions."""
