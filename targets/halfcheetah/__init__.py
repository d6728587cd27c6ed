"""HalfCheetah: Gymnasium's MuJoCo environment (``targets.halfcheetah.reference``) and its port to JAX."""

from targets.halfcheetah.environment import HalfCheetah, Params, State, make

__all__ = ["HalfCheetah", "Params", "State", "make"]
