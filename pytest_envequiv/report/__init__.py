"""What a run leaves: the terminal, the JSON document, standalone tests."""
