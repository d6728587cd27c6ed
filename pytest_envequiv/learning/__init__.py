"""Learning: proximal policy optimisation for any backend. See docs/learning.md.

from pytest_envequiv.learning import PPO, train

trained = train("gymnax:CartPole-v1", PPO(lanes=64, steps=64, minibatches=16, rate=1e-3), steps=150_000)
print(trained.evaluate("gymnasium:CartPole-v1").mean())

It needs optax: pip install 'pytest-envequiv[learning]'. Importing a name from here without it raises ImportError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_envequiv.verdict import LEARNING, NEEDS_LEARNING

if TYPE_CHECKING:
    from pytest_envequiv.learning.checkpoint import CheckpointError
    from pytest_envequiv.learning.plot import plot_curves
    from pytest_envequiv.learning.policy import Policy
    from pytest_envequiv.learning.ppo import PPO
    from pytest_envequiv.learning.training import Trained, prepared, train

__all__ = ["PPO", "CheckpointError", "Policy", "Trained", "plot_curves", "prepared", "train"]

LATE = {
    "CheckpointError": "checkpoint",
    "plot_curves": "plot",
    "Policy": "policy",
    "PPO": "ppo",
    "Trained": "training",
    "prepared": "training",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: who only imports the plugin needs no optax."""
    if name not in LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        import optax  # noqa: F401
    except ImportError as error:
        raise ImportError(f"pytest_envequiv.learning: {NEEDS_LEARNING}", name=LEARNING) from error
    return getattr(importlib.import_module(f"{__name__}.{LATE[name]}"), name)
