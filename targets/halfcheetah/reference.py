"""Gymnasium's HalfCheetah-v5 as a backend: its own class and wrappers, MuJoCo's own step, with the state in the open.

    pytest --envequiv ref="targets.halfcheetah.reference?ctrl_cost_weight=0.5" target=...

Options are those of ``gymnasium.make("HalfCheetah-v5", ...)``. One environment steps all rows, one after another; it is
put into each row's state before each step, so nothing is kept between rows.

The state is qpos, qvel and the time limit's counter. MuJoCo keeps two more things from step to step. ``time`` is only
counted. ``qacc_warmstart`` is where its solver begins to look for accelerations that do not depend on it: they are the
minimum of a strictly convex function, and the solver ends within 1e-8 of its value. So it is no state of the
environment; it is set to zero here, and how little that changes is measured (proof.py, "warm start").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_envequiv.backends import tapes
from pytest_envequiv.backends.protocol import Arrays, Leaf, Outcome, Space, Spec, State, Tape
from pytest_envequiv.errors import OpenError

NAME, ID = "targets.halfcheetah.reference", "HalfCheetah-v5"
NUMBERS = {"forward_reward_weight": 1.0, "ctrl_cost_weight": 0.1, "reset_noise_scale": 0.1, "frame_skip": 5}
LIMIT = 1000


def backend(**options: Any) -> GymnasiumBackend:
    """Opens the reference. Raises OpenError for what is not installed, and for options Gymnasium does not take."""
    try:
        import gymnasium
        import mujoco
    except ImportError as error:
        raise OpenError(f"{NAME}: {error}; install it with: pip install 'pytest-envequiv[halfcheetah]'") from error
    try:
        environment = gymnasium.make(ID, **options)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, AssertionError) as error:
        raise OpenError(f"{NAME}: {' '.join(str(error).split())}") from error
    versions = {"gymnasium": gymnasium.__version__, "mujoco": mujoco.__version__}
    return GymnasiumBackend(environment, {**NUMBERS, **options}, versions)


class GymnasiumBackend:
    """See pytest_envequiv/backends/protocol.py."""

    def __init__(self, environment: Any, settings: dict[str, Any], versions: dict[str, str]):
        self.environment = environment
        self.clock = _wrapper(environment, "_elapsed_steps")
        self.data = environment.unwrapped.data
        self.qpos, self.qvel, self.guess = self.data.qpos, self.data.qvel, self.data.qacc_warmstart
        self.environment.reset(seed=0)  # its wrappers want to see one before a step
        shown, taken = environment.observation_space, environment.action_space
        self.spec = Spec(
            name=NAME,
            kind="gymnasium",
            observation={"observation": Space("box", shown.shape, str(shown.dtype), shown.low, shown.high)},
            action={"action": Space("box", taken.shape, str(taken.dtype), taken.low, taken.high)},
            fields={
                "qpos": Leaf(self.qpos.shape, "float64"),
                "qvel": Leaf(self.qvel.shape, "float64"),
                "time": Leaf((), "int64"),
            },
            state="fields",
            draws="tape",
            batched=True,
            time_limit=environment.spec.max_episode_steps,
            constants={name: np.array(float(value)) for name, value in settings.items() if name in NUMBERS},
            conventions={"auto_reset": "none", "done": "separate"},
            versions=versions,
        )

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        given = [None] * len(seeds) if tape is None else tapes.scatter(tape, len(seeds))
        rows, logs = _Rows(len(seeds), self), []
        for row, (seed, left) in enumerate(zip(np.asarray(seeds).tolist(), given, strict=True)):
            generator = tapes.generator(seed)  # what reset(seed=seed) would make, but it writes down what it draws
            generator.left = left
            self.environment.unwrapped.np_random = generator
            observation, _ = self.environment.reset()
            logs.append(generator.log)
            rows.read(row, observation)
        return Outcome(rows.state(), {"observation": rows.observation}, tapes.gather(logs) if tape is None else tape)

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        rows = _Rows(len(state), self)
        reward, ends = np.zeros(len(state)), np.zeros((len(state), 2), bool)
        qpos, qvel, time = (state.fields[name] for name in ("qpos", "qvel", "time"))
        for row, chosen in enumerate(action["action"]):
            self.qpos[:], self.qvel[:], self.guess[:] = qpos[row], qvel[row], 0.0
            self.clock._elapsed_steps = int(time[row])
            observation, reward[row], *ends[row], _ = self.environment.step(chosen)
            rows.read(row, observation)
        outputs = {"observation": rows.observation, "reward": reward, "terminated": ends[:, 0], "truncated": ends[:, 1]}
        return Outcome(rows.state(), outputs, ())

    def close(self) -> None:
        self.environment.close()


class _Rows:
    """What is read after each row."""

    def __init__(self, count: int, backend: GymnasiumBackend):
        self.backend = backend
        self.observation = np.zeros((count, *backend.spec.observation["observation"].shape))
        self.qpos, self.qvel = (np.zeros((count, *backend.spec.fields[n].shape)) for n in ("qpos", "qvel"))
        self.time = np.zeros(count, np.int64)

    def read(self, row: int, observation: np.ndarray) -> None:
        self.observation[row] = observation
        self.qpos[row], self.qvel[row] = self.backend.qpos, self.backend.qvel
        self.time[row] = self.backend.clock._elapsed_steps

    def state(self) -> State:
        return State({"qpos": self.qpos, "qvel": self.qvel, "time": self.time})


def _wrapper(environment: Any, attribute: str) -> Any:
    """The wrapper that has the attribute itself."""
    while attribute not in vars(environment):
        environment = environment.env
    return environment
