"""PettingZoo games, AEC and parallel: ``pettingzoo:classic.connect_four_v3``, or an environment object.

An AEC game is one environment whose seats take turns; seat 0 is the agent that moves first after a reset. The
observation and mask are those of the agent to move, rewards are what every seat got from the last move. A
parallel game is one environment in which all agents act at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from pytest_envequiv.backends.declared import named_spaces
from pytest_envequiv.backends.discovery import clone
from pytest_envequiv.backends.lanes import Face, transposed
from pytest_envequiv.backends.objects import ObjectBackend
from pytest_envequiv.backends.protocol import AGENT, MASK, REWARD, TERMINATED, TRUNCATED, Backend, Space
from pytest_envequiv.errors import OpenError


def open_name(rest: str, options: dict[str, Any]) -> Backend:
    """``rest`` is a module below ``pettingzoo`` with ``env`` (turns) or ``parallel_env``; options go to it."""
    try:
        importlib.import_module("pettingzoo")
    except ImportError as error:
        raise OpenError(
            f"pettingzoo:{rest}: {error}; install it with: pip install 'pytest-envequiv[pettingzoo]'"
        ) from error
    try:
        module = importlib.import_module(f"pettingzoo.{rest}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("pettingzoo"):
            raise OpenError(
                f"pettingzoo:{rest}: there is no module pettingzoo.{rest} (a name looks like classic.connect_four_v3)"
            ) from error
        raise OpenError(
            f"pettingzoo:{rest} needs the package {error.name!r}; install it with: pip install 'pettingzoo[all]'"
        ) from error
    except ImportError as error:
        raise OpenError(f"pettingzoo:{rest}: {' '.join(str(error).split())}") from error
    make = getattr(module, "env", None) or getattr(module, "parallel_env", None)
    if make is None:
        raise OpenError(f"pettingzoo:{rest}: pettingzoo.{rest} has neither env nor parallel_env")
    return _backend(make(**options), lambda: make(**options), f"pettingzoo:{rest}")


def claim(thing: Any, name: str, options: dict[str, Any]) -> Backend | None:
    """Takes an AECEnv or ParallelEnv object, or a class of them."""
    if not _is_game(thing):
        return None
    if isinstance(thing, type):
        return _backend(thing(**options), lambda: thing(**options), name)
    if options:
        raise OpenError(f"{name}: an environment that is made already takes no options, got {', '.join(options)}")
    return _backend(thing, lambda: clone(thing), name)


def from_factory(first: Any, make: Callable[[], Any], name: str) -> Backend | None:
    """``first`` is one made environment; ``make`` makes more. None if it is not of this kind."""
    return _backend(first, make, name) if _is_game(first) else None


def _is_game(thing: Any) -> bool:
    bases = {base.__name__ for base in (thing if isinstance(thing, type) else type(thing)).__mro__}
    return bool(bases & {"AECEnv", "ParallelEnv"})


def _backend(first: Any, make: Callable[[], Any], name: str) -> Backend:
    turns = hasattr(first, "agent_selection") or hasattr(first.unwrapped, "agent_iter")
    first.reset(seed=0)
    agents = list(first.possible_agents)
    made = [first]
    action, observation = (_turn_spaces if turns else _parallel_spaces)(first, agents)
    return ObjectBackend(
        Face(
            name=name,
            kind="pettingzoo",
            make=lambda: made.pop() if made else make(),
            reset=_turn_reset if turns else _parallel_reset,
            stepper=partial(partial, _turn_step if turns else _parallel_step),
            outputs=transposed,
            action=action,
            observation=observation,
            seats=len(agents),
            conventions={"auto_reset": "none", "done": "separate"},
            versions={"pettingzoo": version("pettingzoo")},
        )
    )


def _turn_spaces(environment: Any, agents: list[str]) -> tuple[dict[str, Space], dict[str, Space]]:
    agent = environment.agent_selection
    spaces = named_spaces("observation", environment.observation_space(agent))
    seen = {_renamed(k): s for k, s in spaces.items() if not k.endswith("action_mask")}
    return named_spaces("action", environment.action_space(agent)), seen


def _renamed(key: str) -> str:
    """The usual dict of observation and action_mask is one observation and a mask."""
    return key.replace("observation.observation", "observation")


def _seats(environment: Any) -> list[str]:
    """Agents in the order of their first turn."""
    agents = list(environment.possible_agents)
    first = getattr(environment.unwrapped, "_envequiv_first", agents[0])
    start = agents.index(first)
    return agents[start:] + agents[:start]


def _turn_reset(environment: Any, seed: int | None) -> dict[str, Any]:
    environment.reset(seed=seed)
    environment.unwrapped._envequiv_first = environment.agent_selection
    return _turn_seen(environment)


def _turn_seen(environment: Any) -> dict[str, Any]:
    agent = environment.agent_selection
    seen = environment.observe(agent)
    outputs: dict[str, Any] = {AGENT: _seats(environment).index(agent)}
    if isinstance(seen, dict):
        seen = dict(seen)
        mask = seen.pop("action_mask", None)
        outputs |= {"observation" if k == "observation" else f"observation.{k}": v for k, v in seen.items()}
    else:
        mask = None
        outputs["observation"] = seen
    if mask is None:
        mask = environment.infos.get(agent, {}).get("action_mask")
    return outputs if mask is None else {**outputs, MASK: np.asarray(mask).astype(bool)}


def _turn_step(environment: Any, action: Any) -> dict[str, Any]:
    environment.step(action)
    seats = _seats(environment)
    reward = np.array([environment.rewards.get(agent, 0.0) for agent in seats], float)
    while environment.agents and not _over(environment):
        agent = environment.agent_selection
        if not (environment.terminations.get(agent) or environment.truncations.get(agent)):
            break
        environment.step(None)  # a seat that is out only leaves the table
    terminated = all(environment.terminations.values()) if environment.terminations else True
    truncated = bool(environment.truncations) and all(environment.truncations.values())
    return {**_turn_seen(environment), REWARD: reward, TERMINATED: bool(terminated), TRUNCATED: bool(truncated)}


def _over(environment: Any) -> bool:
    return all(environment.terminations.get(a) or environment.truncations.get(a) for a in environment.agents)


def _parallel_spaces(environment: Any, agents: list[str]) -> tuple[dict[str, Space], dict[str, Space]]:
    action: dict[str, Space] = {}
    observation: dict[str, Space] = {}
    for agent in agents:
        action |= named_spaces(f"action.{agent}", environment.action_space(agent))
        observation |= named_spaces(f"observation.{agent}", environment.observation_space(agent))
    return action, observation


def _parallel_reset(environment: Any, seed: int | None) -> dict[str, Any]:
    seen, _ = environment.reset(seed=seed)
    return _parallel_seen(environment, seen)


def _parallel_seen(environment: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """Observations by agent; an agent that has left is all zeros."""
    outputs = {}
    for agent in environment.possible_agents:
        value = seen.get(agent)
        if value is None:
            value = np.zeros_like(np.asarray(environment.observation_space(agent).sample()))
        outputs[f"observation.{agent}"] = value
    return outputs


def _parallel_step(environment: Any, action: dict[str, Any]) -> dict[str, Any]:
    given = {agent: action[f"action.{agent}"] for agent in environment.agents}
    seen, rewards, terminations, truncations, _ = environment.step(given)
    reward = np.array([rewards.get(agent, 0.0) for agent in environment.possible_agents], float)
    gone = not environment.agents
    truncated = bool(truncations) and all(truncations.values())
    return {
        **_parallel_seen(environment, seen),
        REWARD: reward,
        TERMINATED: all(terminations.values()) if terminations else gone and not truncated,
        TRUNCATED: truncated,
    }
