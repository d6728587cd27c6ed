"""The pair: both sides opened, their specs reconciled, and what is needed to put the same question to both.

Which output is which, which state field is where, whose draws feed whose, and what is only a difference of
convention. Everything after this file sees one environment with two answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from pytest_envequiv import legality, mapping, sharing, spaces
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.protocol import (
    AGENT,
    DONE,
    MASK,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Arrays,
    Outcome,
    Spec,
    State,
    Tape,
)
from pytest_envequiv.backends.remembering import noted
from pytest_envequiv.backends.suspect import open_suspect
from pytest_envequiv.contract import Contract
from pytest_envequiv.errors import BackendError
from pytest_envequiv.seal import seal
from pytest_envequiv.side import Side, packages_of
from pytest_envequiv.statemap import Link, StateMap
from pytest_envequiv.stimuli import draws as drawing
from pytest_envequiv.stimuli.play import Play, Rows, play, seeds_for, shown
from pytest_envequiv.verdict import Progress, Settings, silent

SAMPLE_LANES = 48


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


class Pair:
    """Both sides, reconciled. Raises OpenError, ContractError or BackendError."""

    def __init__(
        self, settings: Settings, contract: Contract, progress: Progress = silent, ref: Any = None, target: Any = None
    ):
        self.settings, self.contract = settings, contract
        self.notes: list[str] = []
        self.reset_match: drawing.Matching | None = None
        self.step_match: drawing.Matching | None = None
        self.reset_mode = self.step_mode = "unknown"
        self.one_sided = ""  # what only one side leaves to chance
        self.doubt = ""  # why it is not known whether draws are used alike, if it is not
        self.refuses = ""  # what the reference says to actions that it masks, where the target tells no mask
        self.problems: list[spaces.Problem] = []
        progress(f"opening reference {settings.ref}", 0, 0)
        opened = open_backend(settings.ref if ref is None else ref, dict(contract.ref_options))
        if settings.answers and ref is None:
            opened = noted(opened, settings.answers, settings.ref, contract.ref_options)
        self.ref = Side("ref", opened)
        self.broken = seal(*packages_of(settings.ref, self.ref.backend))
        progress(f"opening target {settings.target}", 0, 0)
        self.suspect = open_suspect(settings, target, contract.target_options, self.ref.spec)
        self.target = Side("target", self.suspect.backend, self.suspect.heard)
        self.ref.progress = self.target.progress = progress
        self.actions = spaces.match_actions(self)
        self.observations = spaces.match_observations(self)
        self.blocked = next((p.text for p in self.problems if p.subject == "action"), None)
        self.fields: tuple[Field, ...] = ()
        self.map = StateMap((), {}, (), {})
        if self.blocked is None:
            try:
                self._reconcile(progress)
            except BackendError as error:  # it cannot even be played: what its specs say is still worth saying
                self.blocked = str(error)
                self.problems.append(spaces.Problem("runs", self.blocked, error.side == "target"))
        self.conventions = spaces.conventions(self)
        self.notes += self.conventions
        if self.suspect.isolated and self.target.compiled:
            self.notes.append("isolated: the target's program is not looked into (no coverage, data flow or blame)")

    # -- reconciling by playing ----------------------------------------------------------------------------------

    def _reconcile(self, progress: Progress) -> None:
        seed = 1_000_003  # what a pair is must not depend on the seed of the run
        legality.settle(self)
        sampled = partial(play, self.ref, SAMPLE_LANES, mapping.SAMPLE_STEPS, seed, progress=progress)
        try:
            self.sample: Play = sampled(what="sampling the reference")
        except BackendError as error:
            if self.ref.masked or error.side != "ref":
                raise
            self.ref.masked, self.refuses = True, str(error)
            self.sample = sampled(what="sampling the reference")
        seeds = self.sample.reset_seeds
        own = self.target.reset(seeds)
        spaces.check_shapes(self, own)
        self.reset_match, self.reset_mode = sharing.align_resets(self, seeds, own)
        self.step_match, self.step_mode = sharing.align_steps(self, own, seeds)
        pairs = mapping.play_both(self, seeds)
        self.map = mapping.build(self, pairs)
        self.one_sided = sharing.one_sided(self)
        if self.one_sided:
            self.step_mode = "none needed"  # what follows from a state is certain on one side: every row must agree
        self.fields = self._list_fields()

    @cached_property
    def whole(self) -> frozenset[str]:
        """Float fields of the reference's state that held nothing but whole numbers in play."""
        fields = {
            n: np.concatenate([self.sample.rows.state.fields[n], v]) for n, v in self.sample.resets.state.fields.items()
        }
        floats = {n: v[np.isfinite(v)] for n, v in fields.items() if v.dtype.kind == "f"}
        return frozenset(n for n, v in floats.items() if (v == np.round(v)).all())

    @cached_property
    def target_play(self) -> Play:
        """The target on its own: what its state and observations look like in play."""
        return play(self.target, SAMPLE_LANES, mapping.SAMPLE_STEPS, 3_000_017)

    @cached_property
    def fresh(self) -> Play:
        """The reference on its own, from resets that are no part of the sample: what a proposed map is tried on."""
        return play(self.ref, 16, 24, 2_000_003)

    # -- what is compared ----------------------------------------------------------------------------------------

    def _list_fields(self) -> tuple[Field, ...]:
        ours, theirs = self.sample.outcome, self.target.spec
        example = self.example_outcome.outputs
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
                self._field(
                    name, "state", str(link), link.field, values, np.dtype(link.leaf.dtype), base, not self.goes_on
                )
            )
        for target_name, name in sorted(self.observations.items()):
            fields.append(self._output(name, target_name, example, base, live_only=self.begins_anew))
        fields.append(self._output(REWARD, REWARD, example, base))
        merged = DONE in ours.outputs or DONE in example
        for name in (DONE,) if merged else (TERMINATED, TRUNCATED):
            values = ours.done if name == DONE else ours.outputs[name]
            fields.append(self._field(name, "output", name, name, values, np.dtype(bool), base, False))
        for name in (MASK, AGENT):
            if name in ours.outputs and name in example:
                fields.append(self._output(name, name, example, base, live_only=not self.goes_on))
        return tuple(fields)

    @property
    def begins_anew(self) -> bool:
        """Whether only one side's step resets by itself: what that leaves where an episode ends is the next one."""
        return self._resetting == 1

    @property
    def goes_on(self) -> bool:
        """Whether both sides' steps reset by themselves: then what they leave where an episode ends is compared too."""
        return self._resetting == 2

    @property
    def _resetting(self) -> int:
        return sum(side.spec.conventions.get("step") == "auto-reset" for side in (self.ref, self.target))

    @property
    def unseen(self) -> bool:
        """Whether a side shows nothing after a reset."""
        return any(side.spec.conventions.get("reset") == "unseen" for side in (self.ref, self.target))

    @cached_property
    def example_outcome(self) -> Outcome:
        begun = self.target.reset(seeds_for(95, count=4))
        action = self.target_action({k: v[:4] for k, v in self.sample.rows.action.items()})
        return self.target.step(begun.state, action, seeds_for(96, count=4))

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

    def _linked(self, link: Link, state: State, seen: Arrays, clock: np.ndarray) -> np.ndarray:
        """The reference's value of one linked field, not squeezed into the target's precision or range: a counter
        that overflows there has not overflowed here."""
        kind = link.leaf.dtype[0]
        dtype = link.leaf.dtype if link.recode or kind == "b" else "int64" if kind in "iu" else "float64"
        wide = Link(link.field, type(link.leaf)(link.leaf.shape, dtype), link.sources, link.recode)
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
        return ours, self.target.reset(seeds, self.fed(self.reset_match, ours.draws, lambda: self.target.reset(seeds)))

    def fed(self, match: drawing.Matching, tape: Tape, own: Callable[[], Outcome]) -> Tape:
        """The reference's draws as the target takes them. A compiled target needs every draw it may make, so its
        ``own`` fill what the reference did not make; others ask for what they want, by kind and shape."""
        if not self.target.compiled:
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
        if not self.target.compiled:
            return state
        # What is None in the reference (kept as NaN) is some number in a compiled target, where nothing reads it.
        return State(
            {
                k: np.nan_to_num(v, nan=0.0, posinf=np.inf, neginf=-np.inf) if v.dtype.kind == "f" else v
                for k, v in state.fields.items()
            }
        )

    def ask(self, rows: Rows, known: Outcome | None = None) -> tuple[Outcome, Outcome]:
        """One step of both sides from the same rows; ``known`` is the reference's outcome if it has been had."""
        ours = self.ref.step(rows.state, rows.action, rows.seeds) if known is None else known
        return ours, self.target_step(self.inject(rows), rows.action, rows.seeds, ours.draws)

    def target_step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None) -> Outcome:
        """One step of the target alone, from its own states, with the reference's action and draws."""
        action = self.target_action(action)
        if self.step_mode == "tape" and self.step_match and tape is not None:
            given = self.fed(self.step_match, tape, lambda: self.target.step(state, action, seeds))
            return self.target.step(state, action, seeds, given)
        return self.target.step(state, action, seeds)

    def target_covered(self, rows: Rows, tape: Tape | None) -> tuple[np.ndarray, np.ndarray]:
        """(hits, distances) of one step of a target whose branches are known; ``tape``: the reference's draws."""
        state, action = self.inject(rows), self.target_action(rows.action)
        given = None
        if self.step_mode == "tape" and self.step_match and tape is not None:
            given = self.fed(self.step_match, tape, lambda: self.target.step(state, action, rows.seeds))
        backend: Any = self.target.backend
        _, hits, distances = self.target.call("step", lambda: backend.step_covered(state, action, rows.seeds, given))
        return hits, distances

    @contextmanager
    def instead(self, other: Side) -> Iterator[None]:
        """Inside the block another side stands for the target: the same one, elsewhere."""
        target, self.target = self.target, other
        try:
            yield
        finally:
            self.target = target

    # -- conventions ---------------------------------------------------------------------------------------------

    @property
    def time_limit(self) -> int | None:
        """Steps to truncation, as far as anyone says: the contract, the reference, the target."""
        return self.contract.time_limit or self.ref.spec.time_limit or self.target.spec.time_limit

    def describe(self) -> dict[str, Any]:
        """JSON-safe: what each side is and how they are tied together."""
        return {
            "ref": _described(self.ref.spec),
            "target": _described(self.target.spec),
            "map": self.map.text(),
            "draws": f"reset: {self.reset_mode}; step: {self.step_mode}",
        }

    def close(self) -> None:
        self.ref.close()
        self.target.close()
        self.suspect.close()


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
