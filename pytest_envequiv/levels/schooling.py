"""Policies that are trained on one side, in the reference's words, so that they can act on either."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from pytest_envequiv import contents
from pytest_envequiv.backends.protocol import (
    AGENT,
    DONE,
    MASK,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Arrays,
    Outcome,
    State,
    Tape,
)
from pytest_envequiv.bench import LANES, Bench
from pytest_envequiv.errors import BudgetSpent, EnvequivError, Limitation
from pytest_envequiv.pair import Pair
from pytest_envequiv.side import Side
from pytest_envequiv.stimuli.play import measured, play, seeds_for
from pytest_envequiv.verdict import Progress, pair_name

SideName = Literal["target", "reference"]
CALIBRATION = 2 * LANES  # episodes from which a policy's own noise is known, and that of no policy


@dataclass(frozen=True, eq=False)
class Pupil:
    """A policy and what it is worth on the side it was trained on.

    number   which of the policies of that side
    own      float[n], returns of seat 0 in episodes of its own side; ``random``: of uniform play there
    length   mean number of steps of its own episodes
    """

    side: SideName
    number: int
    policy: Any
    curve: dict[str, np.ndarray]
    own: np.ndarray
    random: np.ndarray
    length: float

    @property
    def span(self) -> float:
        """What was learned: how much more it gets than uniform play."""
        return float(self.own.mean() - self.random.mean())


def pupils(bench: Bench, side: SideName, progress: Progress) -> list[Pupil]:
    """The policies of one side, in order. Raises Limitation in words that say how to mend it, BudgetSpent, and
    BackendError for what a side does."""

    def once() -> list[Pupil] | Limitation:
        try:
            return _trained(bench, side, progress)
        except Limitation as error:  # other checks need not wait for it again
            return error

    found: list[Pupil] | Limitation = bench.once(("pupils", side), once)
    if isinstance(found, Limitation):
        raise found
    return found


def _trained(bench: Bench, side: SideName, progress: Progress) -> list[Pupil]:
    pair, sizes = bench.pair, bench.sizes
    if set(pair.observations.values()) != set(pair.ref.spec.observation):
        raise Limitation("a policy cannot see the same on both sides: their observations cannot be matched")
    view = of_target(pair) if side == "target" else of_reference(pair)
    started = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        progress(f"L4: {what} on the {side}", done, total)
        now = time.monotonic()
        if now > min(pair.ref.deadline, pair.target.deadline):
            raise BudgetSpent("the time budget is spent while a policy is trained")
        if now - started > sizes.patience:
            how_far = f"{done:,} of {total:,} steps into a policy; a larger profile gives it more time"
            raise Limitation(f"training on the {side} was ended after {sizes.patience:,} s, {how_far}")

    ready = _guarded(side, partial(_prepared, view))
    found = []
    waves = CALIBRATION // LANES
    random = _episodes(view, bench, seeds_for(bench.settings.seed, 59, count=waves).tolist(), "uniform")["return"]
    for number in range(sizes.policies):
        seed, *seeds = seeds_for(bench.settings.seed, 60, number, count=1 + waves).tolist()
        trained = _guarded(side, partial(_resumed, bench, side, number, ready, seed, tell))
        tell(f"trying policy {number}", sizes.training, sizes.training)
        own = _episodes(view, bench, seeds, "the policy's", trained.policy)
        length = float(own["length"].mean())
        found.append(Pupil(side, number, trained.policy, trained.curve, own["return"], random, length))
    return found


def _prepared(view: View) -> Any:
    from pytest_envequiv.learning import PPO, prepared

    # Small minibatches: with large ones a policy is sure of itself before it has seen much.
    return prepared(view, PPO(lanes=64, steps=64, minibatches=16, rate=1e-3))


def _guarded(side: SideName, work: Callable[[], Any]) -> Any:
    """What we cannot do is no fault of a side, unless the side itself failed."""
    try:
        return work()
    except (EnvequivError, MemoryError):
        raise
    except ImportError as error:
        raise Limitation(str(error)) from error
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise Limitation(f"no policy could be trained on the {side}: {type(error).__name__}: {text}") from error


def _resumed(bench: Bench, side: SideName, number: int, ready: Any, seed: int, tell: Progress) -> Any:
    """Train, and go on from the checkpoint of an earlier run where there is one of the very same training."""
    from pytest_envequiv.learning import CheckpointError, train

    path, mark = _checkpoint(bench, side, number)

    def run(path: Path | None) -> Any:
        return train(ready, steps=bench.sizes.training, seed=seed, checkpoint=path, mark=mark, progress=tell)

    try:
        return run(path)
    except CheckpointError:  # of another target, version or profile
        assert path is not None
        path.unlink(missing_ok=True)
        return run(path)
    except OSError:  # it cannot be written: that must not cost the verdict
        return run(None)


def _checkpoint(bench: Bench, side: SideName, number: int) -> tuple[Path | None, str]:
    """Where a training is kept, and the files it depends on; nowhere if it is short, or if they are not known."""
    settings, suspect = bench.settings, bench.pair.suspect
    if settings.profile == "quick" or suspect.thing is not None:
        return None, ""
    try:
        mark = contents.package_hash(settings.target if side == "target" else settings.ref)
    except (EnvequivError, OSError):
        return None, ""
    folder = Path(settings.output) / "training" / pair_name(settings.ref, settings.target)
    return folder / f"{settings.profile}-{side}-{number}.npz", mark


def _episodes(view: View, bench: Bench, seeds: list[int], what: str, policy: Any = None) -> dict[str, np.ndarray]:
    """float[CALIBRATION], "return" of seat 0 and "length": under the policy, or under uniform play."""
    found = []
    for seed in seeds:
        actor = None if policy is None else policy.actor(LANES, seed)
        played = play(view, LANES, horizon(bench), seed, ("uniform",), bench.progress, f"L4: {what} play", actor=actor)
        found.append(measured(played))
    return {name: np.concatenate([wave[name][:, 0] for wave in found]) for name in ("return", "length")}


def horizon(bench: Bench) -> int:
    """Steps after which an episode is left alone; where none is declared sooner than in other play."""
    return bench.horizon if bench.pair.time_limit is not None else bench.horizon // 2


# -- both sides in the reference's words -------------------------------------------------------------------------------


@dataclass(eq=False)
class View:
    """One side with the reference's names and actions, and only what both sides show. A backend."""

    side: Side
    spec: Any
    names: dict[str, str]  # what it shows -> what the policy calls it
    action: Callable[[Arrays], Arrays]
    row_reset: Callable[..., Any] | None = None
    row_step: Callable[..., Any] | None = None

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._renamed(self.side.reset(seeds))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._renamed(self.side.step(state, self.action(action), seeds))

    def close(self) -> None:
        """The pair closes its sides."""

    def _renamed(self, outcome: Outcome) -> Outcome:
        return Outcome(outcome.state, _told(self.names, outcome.outputs))


def of_reference(pair: Pair) -> View:
    names = {name: name for name in pair.observations.values()} | _shared(pair)
    return _view(pair.ref, pair, names, lambda action: action, lambda action: action)


def of_target(pair: Pair) -> View:
    def row_action(action: dict[str, Any]) -> dict[str, Any]:
        """As ``Pair.target_action``, of one row, inside a compiled program."""
        found = {}
        for target_name, name in pair.actions.items():
            ours, theirs = pair.ref.spec.action[name], pair.target.spec.action[target_name]
            value = jnp.asarray(action[name])
            if ours.kind == "discrete":
                value = value - np.asarray(ours.low).astype(np.int32) + np.asarray(theirs.low).astype(np.int32)
            found[target_name] = value.reshape(theirs.shape)
        return found

    return _view(pair.target, pair, pair.observations | _shared(pair), pair.target_action, row_action)


def _shared(pair: Pair) -> dict[str, str]:
    """The mask, and whose turn it is, if both sides say so."""
    ours, theirs = pair.sample.outcome.outputs, pair.example_outcome.outputs
    return {name: name for name in (MASK, AGENT) if name in ours and name in theirs}


def _view(side: Side, pair: Pair, names: dict[str, str], action: Any, row_action: Any) -> View:
    ours = pair.ref.spec
    spec = replace(
        side.spec,
        action=ours.action,
        observation={name: ours.observation[name] for name in names.values() if name in ours.observation},
    )
    view = View(side, spec, names, action)
    pure: Any = side.backend
    if not hasattr(pure, "row_step"):
        return view

    def row_reset(seed: Any) -> Any:
        fields, outputs = pure.row_reset(seed)
        return fields, _told(names, outputs)

    def row_step(fields: Any, action: Any, seed: Any) -> Any:
        fields, outputs = pure.row_step(fields, row_action(action), seed)
        return fields, _told(names, outputs)

    return replace(view, row_reset=row_reset, row_step=row_step)


def _told(names: dict[str, str], outputs: Any) -> dict[str, Any]:
    kept = (REWARD, TERMINATED, TRUNCATED, DONE)
    found = {new: outputs[old] for old, new in names.items() if old in outputs}
    return found | {name: outputs[name] for name in kept if name in outputs}
