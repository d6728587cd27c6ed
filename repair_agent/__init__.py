"""``envequiv-repair``: patches a JAX or Rust target until every check of the suite says EQUAL, under a budget.

A program of its own: it never shares a process with the target it mends, and its word is not the last; the suite's is.
"""
