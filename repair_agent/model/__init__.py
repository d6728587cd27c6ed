"""The engine that asks a language model: what it is told, what it can do, one call of the API."""
