"""Limits in dollars, seconds, calls and tokens that cannot be overshot: the worst case is reserved before a call."""

from __future__ import annotations


class Exhausted(Exception):
    """A limit is reached, or the next call could overshoot it."""


class Budget:
    """What may be spent, and what is."""
