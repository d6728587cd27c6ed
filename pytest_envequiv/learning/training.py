"""Training from end to end: chunks of iterations, progress, checkpoints, the learning curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import Backend, Spec
from pytest_envequiv.errors import Limitation
from pytest_envequiv.learning import checkpoint as checkpoints
from pytest_envequiv.learning.interface import Interface, interface_of
from pytest_envequiv.learning.loops import TOLD, Compiled, Stepped
from pytest_envequiv.learning.policy import Policy
from pytest_envequiv.learning.ppo import PPO, begun
from pytest_envequiv.stimuli.play import measured, play
from pytest_envequiv.verdict import Progress, silent

CHUNK = 32_768  # environment steps between two looks at the run: progress, checkpoint
LANES = 64  # episodes side by side when a policy is evaluated
LONGEST = 10_000  # steps after which an evaluated episode is left alone

Curve = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An environment made ready to be learned from; several trainings of it share one compiled program."""

    spec: Spec
    ppo: PPO
    interface: Interface
    loop: Compiled | Stepped


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of it.

    policy   acts on any environment with the same interface
    curve    one value an iteration: "steps" in the environment so far; "episodes" that ended, and their mean "return"
             and "length" (NaN where none ended); and of the update "entropy", "divergence" of the new policy from the
             old, share of "clipped" ratios, "error" of the critic and share of the returns' variance it "explained"
    """

    policy: Policy
    curve: Curve
    ppo: PPO
    seed: int

    @property
    def steps(self) -> int:
        """Environment steps taken."""
        return int(self.curve["steps"][-1]) if len(self.curve["steps"]) else 0

    def evaluate(
        self, environment: Any, episodes: int = 100, seed: int = 1, greedy: bool = False, longest: int = LONGEST
    ) -> np.ndarray:
        """float[episodes]: returns (of seat 0) of whole episodes of ``environment``, which is what ``train`` takes.

        Actions are drawn as in training, or the likeliest are taken (``greedy``). An episode that lasts ``longest``
        steps is left alone there.
        """
        backend = opened(environment)
        found = []
        for wave in range(-(-episodes // LANES)):
            actor = self.policy.actor(LANES, seed + wave, greedy)
            found.append(measured(play(backend, LANES, longest, seed + 7_919 * wave, actor=actor))["return"][:, 0])
        return np.concatenate(found)[:episodes]


def train(
    environment: Any,
    ppo: PPO = PPO(),  # noqa: B008  frozen
    *,
    steps: int = 200_000,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    mark: str = "",
    enough: Callable[[Curve], bool] | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a policy by proximal policy optimisation.

    environment  a name as on pytest's command line ("gymnax:CartPole-v1"), a module, class, factory or environment
                 object, a backend, or what ``prepared`` made of one of them. A JAX environment and its learner are
                 compiled into one program; others are stepped from outside, ``ppo.lanes`` episodes at once
    ppo          settings of the method; what was prepared has its own
    steps        in the environment, over all lanes; rounded up to whole iterations
    seed         from 0 to 2**31 - 1, fixes everything: the same seed gives the same policy, bit for bit, on one machine
    checkpoint   a file to write to after every chunk, and to go on from if it is there
    mark         kept in the checkpoint: one with another mark is not gone on from
    enough       asked after every chunk with the curve so far: True ends the training
    progress     called with what is done, steps taken and steps to take

    Raises OpenError if a name does not open, Limitation if an environment cannot be learned from (what it shows or pays
    is not finite, say), CheckpointError for a checkpoint of another run, OSError if none can be written; in one line.
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed = {seed!r}: give a whole number from 0 to 2**31 - 1")
    ready = environment if isinstance(environment, Prepared) else prepared(environment, ppo)
    ppo, interface, loop = ready.ppo, ready.interface, ready.loop
    total = -(-steps // ppo.batch)
    chunk = max(1, CHUNK // ppo.batch)  # however short the run is: it is what the program is compiled for
    about = _about(ready, steps, seed, mark)
    learner = begun(ppo, interface, total, seed)
    lanes = loop.begin(learner)
    told = np.zeros((0, len(TOLD)), np.float32)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and (kept := checkpoints.load(path, about, (learner, lanes))):
        (learner, lanes), told = kept
    while len(told) < total and not (enough is not None and len(told) and enough(curve_of(told, ppo))):
        done = len(told) * ppo.batch
        what = f"training, seed {seed}{_latest(told)}"
        progress(what, done, steps)
        count = min(chunk, total - len(told))

        def tell(_: str, more: int, __: int, what: str = what, done: int = done) -> None:
            progress(what, done + more, steps)

        learner, lanes, rows = loop.advance(learner, lanes, count, chunk, tell)
        told = np.concatenate([told, rows])
        if not np.isfinite(rows).all():
            at = (len(told) - len(rows) + int(np.argmax(~np.isfinite(rows).all(1)))) * ppo.batch
            raise Limitation(
                f"{ready.spec.name}: the training was ended after {at:,} steps: an observation or a reward "
                "is not finite, or the step size (rate) is too large"
            )
        if path is not None:
            checkpoints.save(path, about, (learner, lanes), told)
    progress(f"training, seed {seed}{_latest(told)}", steps, steps)
    return Trained(Policy(ppo, interface, learner.params, learner.sight), curve_of(told, ppo), ppo, seed)


def prepared(environment: Any, ppo: PPO = PPO()) -> Prepared:  # noqa: B008  frozen
    """Raises as ``train`` does."""
    backend = opened(environment)
    pure: Any = backend
    if getattr(backend, "row_step", None) is not None:
        shown = jax.eval_shape(pure.row_reset, jax.ShapeDtypeStruct((), np.uint32))[1]
        interface = interface_of(backend.spec, shown)
        return Prepared(backend.spec, ppo, interface, Compiled(ppo, interface, pure.row_reset, pure.row_step))
    interface = interface_of(backend.spec, backend.reset(np.arange(ppo.lanes)).outputs)
    return Prepared(backend.spec, ppo, interface, Stepped(ppo, interface, backend))


def opened(environment: Any) -> Backend:
    """The backend of a name or a thing; a backend is itself."""
    return environment if isinstance(getattr(environment, "spec", None), Spec) else open_backend(environment)


def curve_of(told: np.ndarray, ppo: PPO) -> Curve:
    """See ``Trained``; ``told`` is float32[iterations, len(TOLD)]."""
    found = dict(zip(TOLD, told.T.astype(float), strict=True))
    with np.errstate(invalid="ignore"):
        means = {
            name: found.pop(sums) / found["episodes"] for name, sums in (("return", "returns"), ("length", "lengths"))
        }
    return {"steps": (1 + np.arange(len(told))) * ppo.batch, **means, **found}


def _about(ready: Prepared, steps: int, seed: int, mark: str) -> dict[str, Any]:
    """What has to be the same for a run to be gone on with."""
    return {
        "environment": ready.spec.name,
        "versions": {**ready.spec.versions, "jax": jax.__version__, "optax": version("optax")},
        "interface": repr(ready.interface),
        "device": jax.default_backend(),
        "ppo": ready.ppo.as_json(),
        "steps": steps,
        "seed": seed,
        "mark": mark,
    }


def _latest(told: np.ndarray) -> str:
    ended = told[:, TOLD.index("episodes")] > 0
    if not ended.any():
        return ""
    last = told[ended][-1]
    return f", return {last[TOLD.index('returns')] / last[TOLD.index('episodes')]:.4g}"
