"""When two values, or two samples, are the same."""
