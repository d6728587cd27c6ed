"""Pong: PufferLib's C environment (``targets.pong.reference``) and its port to JAX (``targets.pong``)."""

from targets.pong.port import Params, Pong, State, make

__all__ = ["Params", "Pong", "State", "make"]
