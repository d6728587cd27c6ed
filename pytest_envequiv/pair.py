"""The pair: both sides opened, their specs reconciled, and what is needed to put the same question to both.

Which output is which, which state field is where, whose draws feed whose, and what is only a difference of
convention. Everything after this file sees one environment with two answers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pytest_envequiv import align
from pytest_envequiv.align import Pairs, StateMap
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import (
    AGENT,
    DONE,
    MASK,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Arrays,
    Backend,
    Outcome,
    Space,
    Spec,
    State,
    Tape,
)
from pytest_envequiv.contract import Contract
from pytest_envequiv.errors import BackendError, BudgetSpent, EnvequivError
from pytest_envequiv.stimuli import draws as drawing
from pytest_envequiv.stimuli.play import Play, Rows, play, seeds_for, shown
from pytest_envequiv.verdict import Progress, Settings, silent

SAMPLE_LANES, SAMPLE_STEPS = 48, 40


class Side:
    """One backend with its errors named and its rows counted."""

    def __init__(self, name: Literal["ref", "target"], backend: Backend):
        self.name, self.backend, self.spec = name, backend, backend.spec
        self.transitions = 0
        self.progress: Progress = silent
        self.deadline = float("inf")  # time.monotonic() after which nothing more is asked

    def close(self) -> None:
        self.backend.close()

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._guarded("reset", lambda: self.backend.reset(seeds, tape))

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        self.transitions += len(state)
        return self._guarded("step", lambda: self.backend.step(state, action, seeds, tape))

    def call(self, where: str, function: Any) -> Any:
        """Anything else a backend offers, guarded alike."""
        return self._guarded(where, function)

    def _guarded(self, where: str, function: Any) -> Any:
        self.progress(f"{self.name}.{where}", 0, 0)
        if time.monotonic() > self.deadline:
            raise BudgetSpent(f"the time budget is spent before {self.name}.{where}")
        try:
            return function()
        except (KeyboardInterrupt, MemoryError, EnvequivError):
            raise
        except BaseException as error:  # SystemExit and pytest's Skipped included
            text = " ".join(str(error).split())[:300]
            raise BackendError(
                self.name, where, f"{type(error).__name__}: {text}" if text else type(error).__name__
            ) from error


@dataclass(frozen=True)
class Field:
    """One thing that is compared. ``name`` stands in node ids; ``ref`` and ``target`` are the sides' own names."""

    name: str
    role: Literal["state", "output"]
    ref: str
    target: str
    exact: bool
    eps: float
    scale: np.ndarray  # the reference's range in play, per element, for rounding's floor
    live_only: bool = False  # what it holds when the episode is over is nobody's business


@dataclass(frozen=True)
class Problem:
    """Why something cannot be compared at all."""

    subject: str
    text: str
    different: bool  # True: it is a difference; False: it is merely unknown


class Pair:
    """Both sides, reconciled. Raises OpenError, ContractError or BackendError."""

    def __init__(
        self, settings: Settings, contract: Contract, progress: Progress = silent, ref: Any = None, target: Any = None
    ):
        self.settings, self.contract = settings, contract
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        progress(f"opening reference {settings.ref}", 0, 0)
        self.ref = Side("ref", open_backend(settings.ref if ref is None else ref, dict(contract.ref_options)))
        progress(f"opening target {settings.target}", 0, 0)
        like = self.ref.spec
        self.target = Side(
            "target", open_backend(settings.target if target is None else target, dict(contract.target_options), like)
        )
        self.ref.progress = self.target.progress = progress
        self.actions = self._match_actions()
        self.observations = self._match_observations()
        self.blocked = next((p.text for p in self.problems if p.subject == "action"), None)
        self.fields: tuple[Field, ...] = ()
        self.map = StateMap((), {}, (), {})
        if self.blocked is None:
            self._reconcile(progress)
        self._conventions()

    # -- spaces --------------------------------------------------------------------------------------------------

    def _match_actions(self) -> dict[str, str]:
        """Target action name -> reference action name."""
        ours, theirs = self.ref.spec.action, self.target.spec.action
        names = _renaming(ours, theirs)
        problem = None
        if names is None:
            problem = f"the reference acts by {_listed(ours)}, the target by {_listed(theirs)}"
        else:
            for target_name, name in names.items():
                a, b = ours[name], theirs[target_name]
                count = [np.asarray(s.high - s.low + 1).tolist() if s.kind == "discrete" else None for s in (a, b)]
                if (
                    a.kind != b.kind
                    or int(np.prod(a.shape)) != int(np.prod(b.shape))
                    or np.any(np.ravel(count[0] or 0) != np.ravel(count[1] or 0))
                ):
                    problem = f"{name}: the reference takes {a}, the target {b}"
        if problem:
            self.problems.append(Problem("action", f"action spaces cannot be matched: {problem}", True))
        return names or {}

    def _match_observations(self) -> dict[str, str]:
        """Target observation name -> reference observation name, for those whose sizes agree."""
        ours, theirs = self.ref.spec.observation, self.target.spec.observation
        names = _renaming(ours, theirs)
        if names is None:
            shared = {n: n for n in theirs if n in ours}
            text = f"the reference shows {_listed(ours)}, the target {_listed(theirs)}"
            self.problems.append(Problem("observation", f"observation spaces cannot be matched: {text}", True))
            names = shared
        matched = {}
        for target_name, name in names.items():
            a, b = ours[name], theirs[target_name]
            if int(np.prod(a.shape)) != int(np.prod(b.shape)):
                text = f"{name} has shape {a.shape} in the reference and {b.shape} in the target"
                self.problems.append(Problem("observation", f"observation spaces cannot be matched: {text}", True))
                continue
            if a.shape != b.shape:
                self.notes.append(
                    f"{name}: shape {a.shape} in the reference, {b.shape} in the target (compared reshaped)"
                )
            matched[target_name] = name
        return matched

    # -- reconciling by playing ----------------------------------------------------------------------------------

    def _reconcile(self, progress: Progress) -> None:
        seed = 1_000_003  # what a pair is must not depend on the seed of the run
        self.sample: Play = play(
            self.ref, SAMPLE_LANES, SAMPLE_STEPS, seed, progress=progress, what="sampling the reference"
        )
        seeds = self.sample.reset_seeds
        own = self.target.reset(seeds)
        self.reset_match, self.reset_mode = self._align_resets(seeds, own)
        self.step_match, self.step_mode = self._align_steps(own, seeds)
        pairs = self._play_both(seeds)
        self.map = self._map(pairs)
        self.fields = self._list_fields()

    def _align_resets(self, seeds: np.ndarray, own: Outcome) -> tuple[drawing.Matching | None, str]:
        """How both sides can begin alike: "tape", "seed" or "none"."""
        ours = self.sample.resets
        if ours.draws is not None and own.draws is not None and any(not drawing.trivial(d) for d in ours.draws):
            match = drawing.match(ours.draws, own.draws)
            if match.links and not match.unused:
                fed = self.target.reset(seeds, self._fed(match, ours.draws, lambda: own))
                # Draws that look alike but are used in another way bring no two episodes together.
                if self._alike(ours, fed) >= 0.5:
                    return match, "tape"
        if self._alike(ours, own) >= align.ENOUGH:
            return None, "seed"
        return None, "none"

    def _align_steps(self, own: Outcome, seeds: np.ndarray) -> tuple[drawing.Matching | None, str]:
        """How a step's draws are shared: "none needed", "tape", "seed" or "distribution"."""
        ours = self.sample.outcome.draws
        rows = np.arange(len(seeds)) % self.sample.episodes
        action = {k: v[rows] for k, v in self.sample.rows.action.items()}
        stepped = self.target.step(own.state, self.target_action(action), seeds)
        theirs = stepped.draws
        drawn_ours = [d for d in ours or () if not drawing.trivial(d)]
        drawn_theirs = [d for d in theirs or () if not drawing.trivial(d)]
        if ours is not None and not drawn_ours and theirs is not None and not drawn_theirs:
            return None, "none needed"
        if ours is not None and theirs is not None and drawn_ours and drawn_theirs:
            match = drawing.match(ours, theirs)
            if match.whole:
                return match, "tape"
        if not self._varies(self.ref, self.sample.rows) and not self._varies_target(own, action):
            return None, "none needed"
        same_kind = self.ref.spec.kind == self.target.spec.kind
        return None, "seed" if same_kind and self._same_stream() else "distribution"

    def _varies(self, side: Side, rows: Rows) -> bool:
        """Whether the reference's step depends on its seed."""
        if side.spec.state == "none":
            return bool(side.spec.draws == "none")
        few = rows.take(slice(0, 64))
        first, second = (
            side.step(
                State(few.state.fields, few.state.hidden if side.spec.state == "snapshot" else None),
                few.action,
                seeds_for(n, count=len(few)),
            )
            for n in (5, 6)
        )
        return self._apart(first, second)

    def _varies_target(self, own: Outcome, action: Arrays) -> bool:
        if self.target.spec.state == "none":
            return self.target.spec.draws == "none"
        state = own.state if self.target.spec.state == "snapshot" else State(own.state.fields)
        first, second = (
            self.target.step(state, self.target_action(action), seeds_for(n, count=len(state))) for n in (5, 6)
        )
        return self._apart(first, second)

    def _same_stream(self) -> bool:
        """Whether both sides, from the same reset seeds and step seeds, draw the same."""
        rows = self.sample.rows.take(slice(0, SAMPLE_LANES))
        begun_ours, begun_theirs = self.ref.reset(self.sample.reset_seeds), self.target.reset(self.sample.reset_seeds)
        ours = self.ref.step(begun_ours.state, rows.action, rows.seeds)
        theirs = self.target.step(begun_theirs.state, self.target_action(rows.action), rows.seeds)
        return self._alike(ours, theirs) >= align.ENOUGH

    @staticmethod
    def _apart(a: Outcome, b: Outcome) -> bool:
        return any(
            not np.array_equal(a.outputs[k], b.outputs[k], equal_nan=a.outputs[k].dtype.kind == "f") for k in a.outputs
        )

    def _alike(self, ours: Outcome, theirs: Outcome) -> float:
        """The share of rows whose observations agree."""
        agree = np.ones(len(ours.state), bool)
        for target_name, name in self.observations.items():
            x = np.asarray(ours.outputs[name], float).reshape(len(agree), -1)
            y = np.asarray(theirs.outputs[target_name], float).reshape(len(agree), -1)
            agree &= (np.isclose(x, y, rtol=1e-4, atol=1e-5, equal_nan=True)).all(1)
        return float(agree.mean()) if self.observations else 0.0

    def _play_both(self, seeds: np.ndarray) -> Pairs | None:
        """Free-running play of both sides from the same resets: states with the same history."""
        if self.reset_mode == "none":
            return None
        ours, theirs = self.reset_both(seeds)
        rng_rows = self.sample.rows
        keep_state, keep_seen, keep_clock, keep_target = (
            [ours.state],
            [shown(ours.outputs)],
            [np.zeros(len(seeds), int)],
            [theirs.state],
        )
        lanes = np.arange(len(seeds))
        for t in range(1, SAMPLE_STEPS if self.step_mode != "distribution" else 1):
            at = np.flatnonzero(rng_rows.step == t - 1)
            # The sample's own actions, for the lanes that are still alive on both sides.
            chosen = {int(e): i for e, i in zip(rng_rows.episode[at], at, strict=True)}
            on = np.array([i for i, lane in enumerate(lanes) if int(lane) in chosen], int)
            if not len(on):
                break
            rows = np.array([chosen[int(lanes[i])] for i in on])
            action = {k: v[rows] for k, v in rng_rows.action.items()}
            step_seeds = rng_rows.seeds[rows]
            ours = self.ref.step(ours.state.take(on), action, step_seeds)
            theirs = self._target_step(theirs.state.take(on), action, step_seeds, ours.draws)
            alive = np.flatnonzero(~ours.done & ~theirs.done)
            lanes = lanes[on][alive]
            ours, theirs = ours.take(alive), theirs.take(alive)
            if not len(alive):
                break
            keep_state.append(ours.state)
            keep_seen.append(shown(ours.outputs))
            keep_clock.append(np.full(len(alive), t))
            keep_target.append(theirs.state)
        return Pairs(
            State.join(keep_state),
            {k: np.concatenate([s[k] for s in keep_seen]) for k in keep_seen[0]},
            np.concatenate(keep_clock),
            State.join(keep_target),
            frozenset(n for n, v in self._target_play.rows.state.fields.items() if bool((v != v[:1]).any())),
        )

    @cached_property
    def _target_play(self) -> Play:
        """The target on its own: what its state and observations look like in play."""
        return play(self.target, SAMPLE_LANES, SAMPLE_STEPS, 3_000_017)

    def _map(self, pairs: Pairs | None) -> StateMap:
        if self.target.spec.state != "fields" or self.ref.spec.state != "fields":
            sides = [s for s in (self.ref, self.target) if s.spec.state != "fields"]
            said = "; ".join(
                f"the {'reference' if s is self.ref else 'target'}'s state cannot be written ({s.spec.state})"
                for s in sides
            )
            return StateMap((), {}, tuple(self.ref.spec.fields), {}, False, said)
        free = getattr(self.target.backend, "free", {})
        leaves, fields, given = self.target.spec.fields, self.ref.spec.fields, self.contract.fields
        found = align.propose(leaves, fields, pairs, given, free)
        if found.missing:
            theirs = self._target_play.rows
            shows = align.by_showing(
                (self.sample.rows.state, self.sample.rows.seen), (theirs.state, theirs.seen), self.observations, leaves
            )
            found = align.propose(leaves, fields, pairs, given, free, None, shows)
        if found.missing and pairs is None:
            found = align.propose(leaves, fields, pairs, given, free, self._responses(), shows)
        return self._without_inert(found, pairs)

    def _responses(self) -> dict[str, tuple[align.Source, ...]]:
        """Push fields on both sides, each in its own play, and match those whose pushes are answered alike."""
        names = list(self.observations.values())
        theirs_named = {v: k for k, v in self.observations.items()}
        rows = self.sample.rows.take(slice(0, 256))
        begun = self.target.reset(seeds_for(91, count=256))
        action = {k: np.resize(v, (256, *v.shape[1:])) for k, v in rows.action.items()}
        seeds = seeds_for(92, count=256)
        fixed = {k: np.repeat(v[:1], len(v), 0) for k, v in action.items()}

        def step_ref(state: State) -> Arrays:
            return self.ref.step(
                State(state.fields), {k: v[: len(state)] for k, v in fixed.items()}, seeds[: len(state)]
            ).outputs

        def step_target(state: State) -> Arrays:
            outputs = self.target.step(
                state, self.target_action({k: v[: len(state)] for k, v in fixed.items()}), seeds[: len(state)]
            ).outputs
            return {n: outputs[theirs_named[n]] for n in names}

        mine = align.signatures(step_ref, self.sample.resets.state.edited() if len(rows) < 8 else rows.state, names)
        theirs = align.signatures(step_target, begun.state, names)
        return align.by_response(mine, theirs, self.target.spec.fields)

    def _without_inert(self, found: StateMap, pairs: Pairs | None) -> StateMap:
        """Fields that could not be filled but change nothing are filled as they are after a reset."""
        if not found.missing:
            return self._verified(found, pairs)
        begun = self.target.reset(seeds_for(93, count=64))
        action = self.target_action({k: np.resize(v, (64, *v.shape[1:])) for k, v in self.sample.rows.action.items()})
        seeds = seeds_for(94, count=64)
        base = self.target.step(begun.state, action, seeds)
        links, missing = list(found.links), dict(found.missing)
        for name in found.missing:
            value = begun.state.fields[name]
            leaf = self.target.spec.fields[name]
            other = ~value if value.dtype == bool else value + np.ones((), value.dtype)
            moved = self.target.step(begun.state.edited(**{name: other}), action, seeds)
            if not self._apart(base, moved):
                constant = tuple(value[0].astype(float).ravel().tolist())
                links.append(
                    align.Link(name, leaf, (align.Source("constant", value=constant),), how="changing nothing")
                )
                del missing[name]
                self.notes.append(f"state field {name!r} of the target changes no output; it is not compared")
        return self._verified(StateMap(tuple(links), missing, found.unread, found.ambiguous), pairs)

    def _verified(self, found: StateMap, pairs: Pairs | None) -> StateMap:
        """Try the map on fresh states: injected there, does at least some output come out as the reference's?"""
        if not found.complete:
            open_fields = ", ".join([*found.missing, *found.ambiguous])
            return StateMap(
                found.links, found.missing, found.unread, found.ambiguous, False, f"no sure source for {open_fields}"
            )
        fresh = play(self.ref, 16, 24, 2_000_003)
        rows = fresh.rows
        self.map = found
        theirs = self._target_step(self.inject(rows), rows.action, rows.seeds, fresh.outcome.draws)
        best = 0.0
        for target_name, name in self.observations.items():
            x = np.asarray(fresh.outcome.outputs[name], float).reshape(len(rows), -1)
            y = np.asarray(theirs.outputs[target_name], float).reshape(len(rows), -1)
            moving = np.flatnonzero((x != x[:1]).any(0))
            if len(moving):
                best = max(best, float(np.isclose(x, y, rtol=1e-3, atol=1e-4, equal_nan=True)[:, moving].mean(0).max()))
            elif np.array_equal(x, y):
                best = 1.0
        by_name = all(link.how in ("name", "contract", "never moving", "being a label") for link in found.links)
        verified = best >= 0.5 or by_name or self.step_mode == "distribution" or self._begins_alike(found, pairs)
        said = (
            ""
            if verified
            else f"injected through the proposed map, no output agrees on half of the states (best {best:.0%})"
        )
        return StateMap(found.links, found.missing, found.unread, found.ambiguous, verified, said)

    def _begins_alike(self, found: StateMap, pairs: Pairs | None) -> bool:
        """Whether, after fresh resets with shared draws and soon after, the map gives the very states the target is
        in. A port may be so wrong that no output of a step agrees; the map can be right all the same."""
        if self.reset_mode == "none" or pairs is None:
            return False
        free = getattr(self.target.backend, "free", {})
        seeds = seeds_for(97, count=64)
        ours, theirs = self.reset_both(seeds)
        begun = Pairs(ours.state, shown(ours.outputs), np.zeros(len(seeds), int), theirs.state)
        varied = False
        # Soon after, a port with a bug is off by a little; the wrong field would be off by any amount.
        for some, enough, slack in ((begun, align.ENOUGH, 1e-5), (pairs.until(align.EARLY[0]), 0.5, 0.05)):
            given = found.apply(some.state, some.seen, some.clock, some.clock, free).fields
            for name in given.keys() - free.keys():
                x, y = (np.asarray(v, float).reshape(len(v), -1) for v in (given[name], some.target.fields[name]))
                spread = np.nan_to_num(np.nanmax(y, 0) - np.nanmin(y, 0))
                close = np.abs(x - y) <= 1e-5 + 1e-4 * np.abs(y) + slack * spread
                if (close | (np.isnan(x) & np.isnan(y))).all(1).mean() < enough:
                    return False
                varied |= bool((y != y[:1]).any())
        return varied

    # -- what is compared ----------------------------------------------------------------------------------------

    def _list_fields(self) -> tuple[Field, ...]:
        ours, theirs = self.sample.outcome, self.target.spec
        example = self._target_example()
        shared = [link for link in self.map.links if link.comparable] if self.map.usable else []
        floats = [
            np.dtype(leaf.dtype)
            for spec in (self.ref.spec, theirs)
            for leaf in spec.fields.values()
            if np.dtype(leaf.dtype).kind == "f"
        ]
        base = max((float(np.finfo(d).eps) for d in floats), default=0.0)
        fields = []
        for link in shared:
            values = self._linked(link, ours.state, shown(ours.outputs), self.sample.rows.clock + 1)
            name = (
                f"state.{link.field}"
                if link.field in (*self.observations.values(), REWARD, TERMINATED, TRUNCATED, DONE, MASK, AGENT)
                else link.field
            )
            fields.append(
                self._field(name, "state", str(link), link.field, values, np.dtype(link.leaf.dtype), base, True)
            )
        for target_name, name in sorted(self.observations.items()):
            fields.append(self._output(name, target_name, example, base))
        fields.append(self._output(REWARD, REWARD, example, base))
        merged = DONE in ours.outputs or DONE in example
        for name in (DONE,) if merged else (TERMINATED, TRUNCATED):
            values = ours.done if name == DONE else ours.outputs[name]
            fields.append(self._field(name, "output", name, name, values, np.dtype(bool), base, False))
        for name in (MASK, AGENT):
            if name in ours.outputs and name in example:
                fields.append(self._output(name, name, example, base, live_only=True))
        return tuple(fields)

    @cached_property
    def _example_outcome(self) -> Outcome:
        begun = self.target.reset(seeds_for(95, count=4))
        action = self.target_action({k: v[:4] for k, v in self.sample.rows.action.items()})
        return self.target.step(begun.state, action, seeds_for(96, count=4))

    def _target_example(self) -> Arrays:
        return self._example_outcome.outputs

    def _output(self, name: str, target_name: str, example: Arrays, base: float, live_only: bool = False) -> Field:
        values = self.sample.outcome.outputs[name]
        return self._field(name, "output", name, target_name, values, example[target_name].dtype, base, live_only)

    def _field(
        self,
        name: str,
        role: Any,
        ref: str,
        target: str,
        values: np.ndarray,
        dtype: np.dtype[Any],
        base: float,
        live_only: bool,
    ) -> Field:
        kinds = [values.dtype.kind, dtype.kind]
        exact = "f" not in kinds
        eps = max([base, *(float(np.finfo(d).eps) for d in (values.dtype, dtype) if d.kind == "f")])
        numbers = values.astype(float).reshape(len(values), -1)
        with np.errstate(all="ignore"):
            scale = np.nan_to_num(np.nanmax(numbers, 0) - np.nanmin(numbers, 0), posinf=0.0)
        return Field(safe(name), role, ref, target, exact, eps, scale, live_only)

    def _linked(self, link: align.Link, state: State, seen: Arrays, clock: np.ndarray) -> np.ndarray:
        """The reference's value of one linked field, not squeezed into the target's precision or range: a counter
        that overflows there has not overflowed here."""
        kind = link.leaf.dtype[0]
        dtype = link.leaf.dtype if link.recode or kind == "b" else "int64" if kind in "iu" else "float64"
        wide = align.Link(link.field, type(link.leaf)(link.leaf.shape, dtype), link.sources, link.recode)
        return StateMap((wide,), {}, (), {}).apply(state, seen, clock, clock, {}).fields[link.field]

    def reference_values(self, field: Field, ours: Outcome, clock: np.ndarray) -> np.ndarray:
        """The reference's value of one field, (B, elements); ``clock``: steps since the reset before the step."""
        rows = len(clock)
        if field.role == "state":
            link = next(link for link in self.map.links if link.field == field.target)
            return self._linked(link, ours.state, shown(ours.outputs), clock + 1).reshape(rows, -1)
        if field.ref == DONE:
            return ours.done[:, None]
        return np.asarray(ours.outputs[field.ref]).reshape(rows, -1)

    def values(self, field: Field, ours: Outcome, theirs: Outcome, clock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(expected, actual) of one field, both (B, elements)."""
        if field.role == "state":
            actual = theirs.state.fields[field.target]
        else:
            actual = theirs.done if field.target == DONE else theirs.outputs[field.target]
        return self.reference_values(field, ours, clock), np.asarray(actual).reshape(len(clock), -1)

    # -- asking both ---------------------------------------------------------------------------------------------

    def target_action(self, action: Arrays) -> Arrays:
        """The reference's action as the target wants it: its name, shape, dtype and first number."""
        found = {}
        for target_name, name in self.actions.items():
            ours, theirs = self.ref.spec.action[name], self.target.spec.action[target_name]
            value = action[name]
            if ours.kind == "discrete":
                value = value - np.asarray(ours.low).astype(int) + np.asarray(theirs.low).astype(int)
            found[target_name] = np.asarray(value).reshape(len(value), *theirs.shape).astype(theirs.dtype)
        return found

    def reset_both(self, seeds: np.ndarray) -> tuple[Outcome, Outcome]:
        """Begin the same episodes on both sides, as far as draws can be shared."""
        ours = self.ref.reset(seeds)
        if self.reset_mode != "tape" or self.reset_match is None or ours.draws is None:
            return ours, self.target.reset(seeds)
        return ours, self.target.reset(seeds, self._fed(self.reset_match, ours.draws, lambda: self.target.reset(seeds)))

    def _fed(self, match: drawing.Matching, tape: Tape, own: Callable[[], Outcome]) -> Tape:
        """The reference's draws as the target takes them. A compiled target needs every draw it may make, so its
        ``own`` fill what the reference did not make; others ask for what they want, by kind and shape."""
        if not self.target.spec.traceable:
            return tape
        draws = own().draws
        assert draws is not None
        return drawing.feed(match, tape, draws)

    def injectable(self) -> bool:
        return self.map.usable

    def inject(self, rows: Rows) -> State:
        """The target's states for the rows: through the map, or those of the same histories."""
        if rows.paired is not None:
            return rows.paired
        free = getattr(self.target.backend, "free", {})
        state = self.map.apply(rows.state, rows.seen, rows.clock, rows.seeds, free)
        if not self.target.spec.traceable:
            return state
        # What is None in the reference (kept as NaN) is some number in a compiled target, where nothing reads it.
        return State(
            {
                k: np.nan_to_num(v, nan=0.0, posinf=np.inf, neginf=-np.inf) if v.dtype.kind == "f" else v
                for k, v in state.fields.items()
            }
        )

    def _target_step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None) -> Outcome:
        action = self.target_action(action)
        if self.step_mode == "tape" and self.step_match and tape is not None:
            given = self._fed(self.step_match, tape, lambda: self.target.step(state, action, seeds))
            return self.target.step(state, action, seeds, given)
        return self.target.step(state, action, seeds)

    def ask(self, rows: Rows, known: Outcome | None = None) -> tuple[Outcome, Outcome]:
        """One step of both sides from the same rows; ``known`` is the reference's outcome if it has been had."""
        ours = self.ref.step(rows.state, rows.action, rows.seeds) if known is None else known
        return ours, self._target_step(self.inject(rows), rows.action, rows.seeds, ours.draws)

    def target_step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None) -> Outcome:
        """One step of the target alone, from its own states, with the reference's action and draws."""
        return self._target_step(state, action, seeds, tape)

    # -- conventions ---------------------------------------------------------------------------------------------

    @property
    def time_limit(self) -> int | None:
        """Steps to truncation, as far as anyone says: the contract, the reference, the target."""
        return self.contract.time_limit or self.ref.spec.time_limit or self.target.spec.time_limit

    def _conventions(self) -> None:
        ours, theirs = self.ref.spec, self.target.spec
        self.conventions: list[str] = []
        merged = [s for s in (ours, theirs) if s.conventions.get("done") == "merged"]
        if len(merged) == 1:
            which = "target" if merged[0] is theirs else "reference"
            self.conventions.append(
                f"the {which} has one done flag where the other has terminated and truncated (done is compared)"
            )
        styles = ours.conventions.get("auto_reset", "none"), theirs.conventions.get("auto_reset", "none")
        if styles[0] != styles[1]:
            self.conventions.append(
                f"auto-reset: {styles[0]} in the reference, {styles[1]} in the target (compared without it)"
            )
        for name, a, b in self._matched_spaces():
            if a.dtype != b.dtype:
                self.conventions.append(f"{name}: dtype {a.dtype} in the reference, {b.dtype} in the target")
            if a.kind == "box" and not _same_bounds(a, b):
                self.conventions.append(f"{name}: bounds {a} in the reference, {b} in the target")
        if self.blocked is None:
            example = self._target_example()
            for name, text in ((MASK, "a mask of legal actions"), (AGENT, "whose turn it is")):
                if (name in self.sample.outcome.outputs) != (name in example):
                    which = "target" if name in example else "reference"
                    self.conventions.append(f"only the {which} says {text} (not compared)")
        self.conventions += [*ours.notes, *theirs.notes]
        if self.blocked is None and self.map.unread and self.map.usable:
            self.conventions.append(
                f"state of the reference with no counterpart in the target: {', '.join(self.map.unread)}"
            )
        self.notes += self.conventions

    def _matched_spaces(self) -> list[tuple[str, Space, Space]]:
        found = [(n, self.ref.spec.action[n], self.target.spec.action[t]) for t, n in self.actions.items()]
        return found + [
            (n, self.ref.spec.observation[n], self.target.spec.observation[t]) for t, n in self.observations.items()
        ]

    def describe(self) -> dict[str, Any]:
        """JSON-safe: what each side is and how they are tied together."""
        return {
            "ref": _described(self.ref.spec),
            "target": _described(self.target.spec),
            "map": self.map.text(),
            "draws": f"reset: {getattr(self, 'reset_mode', 'unknown')}; step: {getattr(self, 'step_mode', 'unknown')}",
        }

    def close(self) -> None:
        self.ref.close()
        self.target.close()


def safe(name: str) -> str:
    """A name that can stand in a node id."""
    return re.sub(r"[^\w.]", "_", name)


def _described(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "kind": spec.kind,
        "state": spec.state,
        "draws": spec.draws,
        "versions": dict(spec.versions),
    }


def _renaming(ours: Mapping[str, Space], theirs: Mapping[str, Space]) -> dict[str, str] | None:
    """Target name -> reference name: the same names, or one on each side; None if they cannot be paired."""
    if set(ours) == set(theirs):
        return {n: n for n in theirs}
    if len(ours) == len(theirs) == 1:
        return {next(iter(theirs)): next(iter(ours))}
    return None


def _listed(spaces: Mapping[str, Space]) -> str:
    return ", ".join(f"{name} {space}" for name, space in spaces.items())


def _same_bounds(a: Space, b: Space) -> bool:

    def spread(bound: np.ndarray, space: Space) -> np.ndarray:
        values = np.ravel(np.broadcast_to(bound, space.shape)).astype(float)
        values = np.where(values > 1e38, np.inf, values)  # the largest float is no bound
        return np.where(values < -1e38, -np.inf, values)

    return all(
        np.allclose(spread(x, a), spread(y, b), rtol=1e-5, atol=1e-6) for x, y in ((a.low, b.low), (a.high, b.high))
    )
