"""What to feed both sides: policies, play, states near boundaries, draws."""
