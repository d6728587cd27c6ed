"""Is a mutant detectable at all? A long search that shares nothing with the checks it is to judge.

The original's part (``evidence.py``) is gathered once; a mutant is run operation by operation (``programs.py``), so
that nothing of it is compiled. Cheap aspects come first and the first difference ends the search: what is declared,
resets, one step from a thousand states, one step from a million, the auto-resetting step, whole episodes.

What counts as a difference: an exact field differs in a row where the original's own value does not change when its
float inputs are pushed by up to 64 units in the last place; a float field differs by more than 64 times what pushes of
one unit do to the original there, plus 64 eps times the field's range. Where draws differ, distributions decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pytest_envequiv.backends.functional import JaxBackend
from pytest_envequiv.backends.protocol import Space
from pytest_envequiv.power.evidence import MEMORY, Evidence, gathered, over, take
from pytest_envequiv.power.programs import Programs, Rows, pieces, run, same_program
from pytest_envequiv.power.rounding import LANES, PUSHES, Track, pushed, tracks
from pytest_envequiv.power.samples import different

RATIO = 64
EPS = float(np.finfo(np.float32).eps)
LOOKED_AT = 32  # suspicious rows of a field that are
ALPHA = 1e-9  # for all statistics of one mutant and aspect
FIRST = 1024  # rows of the first look
WORKING = 1 << 30  # bytes that running a step operation by operation may take
LIVE = ("play", "limit")  # rows that were reached by playing


@dataclass(frozen=True)
class Detectability:
    """
    word     "detectable", "equivalent" (nothing found) or "broken" (it does not open, trace or run)
    where    "spec", "reset", "step", "auto" or "episode"; "illegal": a step, with actions outside of their space only
    field    the first output that differs, else the first field of the state
    rows, of  rows that differ, of the batch in which they were found
    text     one line
    example  of a step: "origin" (see ``evidence.py``), inputs, "expected" and "actual"
    """

    word: Literal["detectable", "equivalent", "broken"]
    where: str = ""
    field: str = ""
    rows: int = 0
    of: int = 0
    text: str = ""
    example: dict[str, Any] = dataclasses.field(default_factory=dict)


def broken(error: BaseException) -> Detectability:
    """What becomes of a mutant that cannot be opened."""
    text = " ".join(str(error).split())[:300]
    return Detectability("broken", "spec", text=f"{type(error).__name__}: {text}" if text else type(error).__name__)


class Oracle:
    """Judges mutants of one original. ``rows`` transitions of play, ``resets`` resets, ``size`` rows at a time.

    ``untold``: state fields ("state.x") of which the reference has no value when an episode begins (None until the
    first step): there they can be neither right nor wrong, and are not compared.
    """

    def __init__(
        self,
        original: JaxBackend,
        rows: int = 1_000_000,
        resets: int = 1 << 17,
        seed: int = 20731,
        untold: Container[str] = (),
    ):
        self._original = Programs(original)
        self._untold = untold
        self._size = int(np.clip(1 << (WORKING // self._original.working_bytes).bit_length(), 1 << 10, 1 << 16))
        self._seed = seed
        self.evidence = gathered(self._original, rows, self._size, seed)
        resets = min(resets, MEMORY // self._original.bytes_per_row)
        self._seeds = np.random.default_rng([seed, 1]).integers(0, 2**31, (2, resets)).astype(np.uint32)
        self._resets = self._many(self._original, "reset", {"seed": self._seeds[0]})
        play = self.evidence[0].expected
        self._range = {name: _range(values) for name, values in {**self._resets, **play}.items()}

    def judge(self, mutant: JaxBackend) -> Detectability:
        """Raises nothing of the mutant's own: a mutant that does not run is "broken"."""
        notes: list[str] = []
        try:
            programs = Programs(mutant)
            for aspect in (self._declared, self._shapes, self._reset, self._step, self._auto, self._episodes):
                found = aspect(programs)
                if found is not None and found.word != "equivalent":
                    return found
                notes += [found.text] if found is not None else []
            if not any(self._changed(programs, what) for what in self._original.whats):
                return Detectability("equivalent", text="the same program")
            total, share = sum(map(len, self.evidence)), self._largest_error(programs)
        except Exception as error:  # whatever a mutant raises
            return broken(error)
        text = f"no difference in {total:,} transitions (errors up to {share:.0%} of what counts as rounding at least)"
        return Detectability("equivalent", of=total, text="; ".join([text, *notes]))

    def _changed(self, mutant: Programs, what: str) -> bool:
        return not same_program(self._original, mutant, what)

    def _largest_error(self, mutant: Programs) -> float:
        """Of the floats in the rows of the first look, as a share of the least that counts."""
        expected, actual = self._compared(self._first.expected), mutant.eager("step", self._first.rows)
        shares = [0.0]
        for name, a in expected.items():
            if a.dtype.kind == "f":
                error = np.abs(a.astype(float) - actual[name].reshape(a.shape)) / (RATIO * EPS * self._range[name])
                shares.append(float(error[error <= 1].max(initial=0)))  # beyond it, pushes have explained it
        return max(shares)

    # -- what is declared ----------------------------------------------------------------------------------------

    def _declared(self, mutant: Programs) -> Detectability | None:
        ours, theirs = self._original.backend.spec, mutant.backend.spec
        for what, a, b in (
            ("action", ours.action, theirs.action),
            ("observation", ours.observation, theirs.observation),
        ):
            if list(a) != list(b) or not all(_same_space(a[k], b[k]) for k in a):
                text = f"{' '.join(map(str, a.values()))} is {' '.join(map(str, b.values()))}"
                return Detectability("detectable", "spec", f"{what}_space", text=text)
        for what, x, y in (("time_limit", ours.time_limit, theirs.time_limit), ("seats", ours.seats, theirs.seats)):
            if x != y:
                return Detectability("detectable", "spec", what, text=f"{x} is {y}")
        return None

    def _shapes(self, mutant: Programs) -> Detectability | None:
        """Outputs and state fields of other names, shapes or, of what is seen, types."""
        for what in ("reset", "step"):
            a, b = ({n: v for n, v in p.results(what).items() if n not in p.opaque} for p in (self._original, mutant))
            for name in sorted(a.keys() ^ b.keys(), key=_outputs_first):
                return Detectability("detectable", "spec", name, text=f"{name} is {'missing' if name in a else 'new'}")
            for name in sorted(a, key=_outputs_first):
                x, y = a[name], b[name]
                seen = name.startswith(("observation", "mask"))
                if (np.prod(x.shape) != np.prod(y.shape)) or (not name.startswith("state.") and x.shape != y.shape):
                    return Detectability("detectable", "spec", name, text=f"shape {x.shape} is {y.shape}")
                if seen and x.dtype != y.dtype:
                    return Detectability("detectable", "spec", name, text=f"{x.dtype} is {y.dtype}")
        return None

    # -- resets --------------------------------------------------------------------------------------------------

    def _reset(self, mutant: Programs) -> Detectability | None:
        if not self._changed(mutant, "reset"):
            return None
        made = self._many(mutant, "reset", {"seed": self._seeds[0]})
        suspects = self._suspects(self._resets, made)
        if not (suspects := {n: s for n, s in suspects.items() if n not in self._untold}):
            return None
        name = min(suspects, key=_outputs_first)
        count, of = int(suspects[name].sum()), len(self._seeds[0])
        # Other draws, or another distribution? Independent samples decide.
        fresh = self._many(mutant, "reset", {"seed": self._seeds[1]})
        why = different(self._begun(self._resets), self._begun(fresh), ALPHA)
        if why is None:
            return Detectability("equivalent", "reset", text="resets of other draws but the same distribution")
        return Detectability("detectable", "reset", why[0], count, of, f"{why[1]} (first differing: {name})")

    def _many(self, programs: Programs, what: str, rows: Rows) -> Rows:
        return run(lambda piece: programs.eager(what, piece), rows, self._size)

    def _compared(self, rows: Rows) -> Rows:
        hidden = self._original.opaque | self._original.free
        return {name: rows[name] for name in sorted(rows, key=_outputs_first) if name not in hidden}

    def _begun(self, rows: Rows) -> Rows:
        """What an episode that begins is compared by."""
        return {name: values for name, values in self._compared(rows).items() if name not in self._untold}

    # -- one step ------------------------------------------------------------------------------------------------

    def _step(self, mutant: Programs) -> Detectability | None:
        if not self._changed(mutant, "step"):
            return None
        found = self._on(mutant, self._first)
        if found is None or found.example["origin"] not in LIVE:  # is it found in play, too?
            for evidence in self.evidence:
                if found is not None and evidence.origin not in LIVE:
                    break
                other = self._on(mutant, evidence)
                if other is not None:
                    found = other
                    break
        return self._drawn(mutant, found) if found is not None and self._draws(mutant) else found

    def _on(self, mutant: Programs, evidence: Evidence) -> Detectability | None:
        size = min(self._size, max(FIRST, len(evidence)))
        for start, count, rows in pieces(evidence.rows, size):
            expected = {n: v[start : start + count] for n, v in evidence.expected.items()}
            actual = {n: v[:count] for n, v in mutant.eager("step", rows).items()}
            found = self._differs("step", rows, expected, actual, evidence.origin)
            if found is not None:
                return found
        return None

    @cached_property
    def _first(self) -> Evidence:
        """Some of every origin but illegal actions, mostly play. Where each is from stands in ``_origins``."""
        legal = [e for e in self.evidence if e.origin != "illegal"]
        share = [FIRST // 2] + [FIRST // 2 // max(1, len(legal) - 1)] * (len(legal) - 1)
        share[0] += FIRST - sum(share)
        rng = np.random.default_rng([self._seed, 2])
        chosen = [rng.integers(0, len(e), n) for e, n in zip(legal, share, strict=True)]
        self._origins = np.repeat([e.origin for e in legal], share)

        def joined(of: str) -> Rows:
            parts = [take(getattr(e, of), c) for e, c in zip(legal, chosen, strict=True)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

        return Evidence("first", joined("rows"), joined("expected"))

    def _differs(self, what: str, rows: Rows, expected: Rows, actual: Rows, origin: str) -> Detectability | None:
        """The first field that differs in a row where rounding does not explain it."""
        suspects = self._suspects(expected, actual)
        for name in sorted(suspects, key=_outputs_first):
            where = np.flatnonzero(suspects[name])
            of_play = self._origins[where] == "play" if origin == "first" else np.zeros(len(where), bool)
            first, others = where[of_play], where[~of_play]
            step = max(1, len(where) // LOOKED_AT)
            chosen = np.concatenate([first[::step], others[::step]])[:LOOKED_AT]
            sure = self._unexplained(what, take(rows, chosen), name, expected[name][chosen], actual[name][chosen])
            if not sure.any():
                continue
            row = int(chosen[np.flatnonzero(sure)[0]])
            label = str(self._origins[row]) if origin == "first" else origin
            count, of = round(len(where) * float(sure.mean())), len(next(iter(expected.values())))
            only = "" if not name.startswith("state.") else "; of the state only"
            example = {"origin": label, **{k: v[row].tolist() for k, v in rows.items()}}
            example |= {"expected": expected[name][row].tolist(), "actual": actual[name][row].tolist()}
            text = f"{name} differs in {count:,} of {of:,} {'' if label == 'first' else label + ' '}rows{only}"
            where_ = "illegal" if label == "illegal" else what
            return Detectability("detectable", where_, name, count, of, text, example)
        return None

    def _suspects(self, expected: Rows, actual: Rows) -> dict[str, np.ndarray]:
        """Name -> bool (B,): rows that differ by more than 64 eps of the field's range, or at all if it is exact."""
        found = {}
        for name, a in self._compared(expected).items():
            b = actual[name].reshape(a.shape)
            if a.dtype.kind == "f":
                with np.errstate(invalid="ignore"):
                    error = np.abs(a.astype(float) - b.astype(float))
                    off = error > RATIO * EPS * self._range.get(name, 1.0)
                off |= np.isnan(a) != np.isnan(b.astype(float))
            else:
                off = a != b
            off = off.reshape(len(a), -1).any(1)
            if off.any():
                found[name] = off
        return found

    def _unexplained(self, what: str, rows: Rows, name: str, expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
        """bool (B,): rows in which no push of the original's float inputs leads as far as the mutant is."""
        exact = expected.dtype.kind != "f"
        pushed = self._pushed(what, rows, RATIO if exact else 1)[name].astype(float)
        reached = pushed.reshape(len(expected), PUSHES, -1)
        wrong = actual.astype(float).reshape(len(expected), 1, -1)
        right = expected.astype(float).reshape(len(expected), 1, -1)
        nan = np.isnan(reached) != np.isnan(right)
        if exact or (np.isnan(wrong) != np.isnan(right)).any():
            explained = (reached == wrong) | (np.isnan(reached) & np.isnan(wrong)) | nan
            off = (wrong != right) & ~(np.isnan(wrong) & np.isnan(right))
            return np.asarray((off[:, 0] & ~explained.any(1)).any(1))
        spread = np.where(nan, np.inf, np.abs(reached - right)).max(1)
        floor = RATIO * EPS * np.asarray(self._range.get(name, 1.0)).reshape(1, -1)
        off = np.abs(wrong - right)[:, 0] > RATIO * spread + floor
        if off.any():  # a jump that a slightly larger push makes, too
            far = self._pushed(what, rows, RATIO)[name].astype(float).reshape(reached.shape)
            off &= ~(np.abs(far - wrong) <= floor[:, None]).any(1)
        return np.asarray(off.any(1))

    def _pushed(self, what: str, rows: Rows, ulps: int) -> Rows:
        return pushed(self._original, what, rows, ulps, self._whole, self._seed)

    @cached_property
    def _whole(self) -> set[str]:
        """Inputs of a float type that are whole numbers in all of play: flags and counts."""
        play = self.evidence[0].rows
        return {name for name, v in play.items() if v.dtype.kind == "f" and bool((v == np.round(v)).all())}

    # -- steps that draw -----------------------------------------------------------------------------------------

    def _draws(self, mutant: Programs) -> bool:
        """Whether the outcome of a step depends on its key, here or there."""
        rows = self._first.rows
        other = {**rows, "seed": (rows["seed"] + 1).astype(np.uint32)}
        other |= {name: np.roll(rows[name], 1, 0) for name in self._original.opaque}
        for function in (self._original.compiled("step"), lambda given: mutant.eager("step", given)):
            one, two = (self._compared(function(given)) for given in (rows, other))
            if not all(np.array_equal(one[n], two[n], equal_nan=one[n].dtype.kind == "f") for n in one):
                return True
        return False

    def _drawn(self, mutant: Programs, found: Detectability) -> Detectability:
        """The row in which a difference was found, and others, each with thousands of keys: the same distribution?"""
        suspects = self._suspects(self._first.expected, mutant.eager("step", self._first.rows))
        some = np.any(list(suspects.values()), 0) if suspects else np.zeros(FIRST, bool)
        others = np.argsort(~some, kind="stable")[:: max(1, int(some.sum()) // 32)][:40]
        rng, repeats = np.random.default_rng([self._seed, 4]), self._size // 8
        rows = [{n: np.asarray(found.example[n], v.dtype) for n, v in self._first.rows.items()}]
        rows += [{n: v[i] for n, v in self._first.rows.items()} for i in others]
        for row in rows:
            many = {n: np.repeat(np.asarray(v)[None], repeats, 0) for n, v in row.items()}
            sides = []
            for side in (self._original, mutant):
                fresh = {n: rng.integers(0, 2**32, many[n].shape, np.uint32) for n in self._original.opaque}
                seeds = rng.integers(0, 2**31, repeats).astype(np.uint32)
                sides.append(self._compared(side.eager("step", {**many, **fresh, "seed": seeds})))
            why = different(sides[0], sides[1], ALPHA / len(rows))
            if why is not None:
                example = {"origin": found.example["origin"], **{n: v.tolist() for n, v in row.items()}}
                return Detectability("detectable", found.where, why[0], found.rows, found.of, why[1], example)
        return Detectability("equivalent", "step", text="steps of other draws but the same distribution")

    # -- the auto-resetting step ---------------------------------------------------------------------------------

    def _auto(self, mutant: Programs) -> Detectability | None:
        """Rows of play that end and rows that do not. Of those that end, what is begun is compared by distribution."""
        if "auto" not in self._original.whats:
            return None
        try:
            if not self._changed(mutant, "auto"):
                return None
        except Exception as error:  # a step that runs and an auto-resetting one that does not
            return Detectability("detectable", "auto", text=broken(error).text)
        rows = self._ending
        expected = self._auto_expected
        actual = self._many(mutant, "auto", rows)
        ended = over(expected)
        ends_differ = self._suspects(expected, actual)
        going = {n: s & ~ended for n, s in ends_differ.items() if (s & ~ended).any()}
        begun = {n for n in expected if n.startswith(("state.", "observation"))}
        told = {n: s for n, s in ends_differ.items() if n not in begun}
        if (going or told) and not self._draws(mutant):
            chosen = np.any([*going.values(), *told.values()], 0)
            found = self._differs("auto", take(rows, chosen), take(expected, chosen), take(actual, chosen), "play")
            if found is not None:
                return found
        if not any((ends_differ[n] & ended).any() for n in ends_differ if n in begun and n not in self._untold):
            return None
        rng = np.random.default_rng([self._seed, 5])
        rows = {**rows, "seed": rng.integers(0, 2**31, len(ended)).astype(np.uint32)}
        fresh = self._many(mutant, "auto", rows)
        ours, theirs = ({n: r[n][over(r)] for n in begun} for r in (expected, fresh))
        why = different(self._begun(ours), self._begun(theirs), ALPHA)
        if why is None:
            return Detectability("equivalent", "auto", text="auto-resets of other draws but the same distribution")
        return Detectability("detectable", "auto", why[0], 0, int(ended.sum()), why[1])

    @cached_property
    def _ending(self) -> Rows:
        chosen = [(e, np.flatnonzero(over(e.expected))) for e in self.evidence if e.origin in ("play", "limit")]
        play = self.evidence[0]
        parts = [take(e.rows, ended[: self._size // 4]) for e, ended in chosen]
        parts.append(take(play.rows, np.arange(min(len(play), self._size // 4))))
        return {name: np.concatenate([part[name] for part in parts]) for name in play.rows}

    @cached_property
    def _auto_expected(self) -> Rows:
        return self._many(self._original, "auto", self._ending)

    # -- whole episodes ------------------------------------------------------------------------------------------

    def _episodes(self, mutant: Programs) -> Detectability | None:
        """Both run freely from the same states with the same actions and keys. A lane is compared as long as copies of
        the original, pushed by one unit in the last place at every step, stay together in it."""
        if not (self._changed(mutant, "reset") or self._changed(mutant, "step")) or self._draws(mutant):
            return None
        step = mutant.compiled("step")
        state = {name: self._tracks[0].rows[name] for name in self._original.names}
        for time, track in enumerate(self._tracks):
            actual = step({**track.rows, **{name: state[name] for name in mutant.names}})
            state = actual
            for name, a in self._compared(track.expected).items():
                b = actual[name].reshape(a.shape).astype(float)
                slack = RATIO * track.spread[name] + RATIO * EPS * self._range.get(name, 1.0)
                wrong = (np.abs(a - b) > slack) if a.dtype.kind == "f" else a != b
                wrong = wrong.reshape(LANES, -1).any(1) & track.together
                if wrong.sum() > LANES // 32:
                    text = f"{name} differs in {wrong.sum()} of {LANES} episodes {time + 1} steps from the same state"
                    return Detectability("detectable", "episode", name, int(wrong.sum()), LANES, text)
        return None

    @cached_property
    def _tracks(self) -> list[Track]:
        return tracks(self._original, self._resets, self._whole, self._seed)


def _same_space(a: Space, b: Space) -> bool:
    if (a.kind, a.shape, a.dtype) != (b.kind, b.shape, b.dtype):
        return False
    pairs = ((np.broadcast_to(x, a.shape), np.broadcast_to(y, a.shape)) for x, y in ((a.low, b.low), (a.high, b.high)))
    return all(np.allclose(x, y, rtol=1e-6, atol=0) for x, y in pairs)


def _outputs_first(name: str) -> tuple[bool, str]:
    return name.startswith("state."), name


def _range(values: np.ndarray) -> Any:
    """Of each element over all rows: the distance of its ends, else (always the same) its size, else 1."""
    if values.dtype.kind != "f":
        return 1.0
    finite = np.where(np.isfinite(values), values, np.nan).astype(float)
    with np.errstate(all="ignore"):
        width, size = np.nanmax(finite, 0) - np.nanmin(finite, 0), np.nanmax(np.abs(finite), 0)
    return np.where(width > 0, width, np.where(size > 0, size, 1.0))
