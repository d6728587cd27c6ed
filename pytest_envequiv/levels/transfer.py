"""L4: policies that transfer.

"target" and "reference": policies trained on that side play the same episodes on both, and their returns are compared.
How large a gap may be is fixed before: a share of what was learned (the distance from uniform play), but no less than
two samples of the same policy on the same side would show. Training on the reference is only asked for where it is
cheap, or the profile is a patient one.
"skilled", "astray" and "lockstep": what those policies did on the reference is play like any other, of a kind that no
untrained policy gives: each of its steps is compared, its states with other actions, and whole episodes side by side.
So a gap in the returns ends in a counterexample, and a difference that costs no return is found too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pytest_envequiv.bench import LANES, Bench, Sizes, Step
from pytest_envequiv.comparison import gap, statistics
from pytest_envequiv.comparison.fields import terminated
from pytest_envequiv.comparison.roots import roots
from pytest_envequiv.levels import rollout
from pytest_envequiv.levels.duels import school_of, sides, skilled, wave
from pytest_envequiv.levels.finding import judged_step, said
from pytest_envequiv.levels.schooling import Pupil, SideName, pupils
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Progress, Verdict, Word, pair_name, plain

SOURCES = {"skilled": "resync", "astray": "play"}  # subject -> the source of rows it is, on the bench of skilled play
LEAST = 4 * LANES  # episodes a policy plays on each side at least
CLEARLY = 3.3  # standard errors that a policy must be better than uniform play, or it has not learned
WIDEST = 0.25  # largest margin, as a share of what was learned, whatever the noise
ABOVE = 1.5  # margin of two samples that are alike, in units of how far they may be apart: they must fit into it
LONGER, DEARER = 4, 8  # of short episodes more are played: so many times as many, or times the transitions of play
BEYOND = 0.25  # how far beyond what was seen returns are told apart, as a share of what was learned
POINTS = 60  # of a learning curve in the report


def checks(bench: Bench) -> list[Check]:
    pair = bench.pair
    found = [Check(f"L4-{side}-return", "L4", side, "return", "costly") for side in sides(bench)]
    if pair.step_mode == "distribution":
        return found
    if pair.injectable():
        found += [Check(f"L4-skilled-{f.name}", "L4", "skilled", f.name, "costly") for f in pair.fields]
    if pair.injectable() or (pair.reset_mode != "none" and "none" not in (pair.ref.spec.state, pair.target.spec.state)):
        found += [Check(f"L4-astray-{f.name}", "L4", "astray", f.name, "costly") for f in pair.fields]
    if pair.reset_mode != "none" or pair.injectable():
        found += [Check(f"L4-lockstep-{f.name}", "L4", "lockstep", f.name, "costly") for f in pair.fields]
    return found


def comparisons(bench: Bench) -> int:
    """Two of each policy: events of the return, and its mean."""
    return 2 * bench.sizes.policies * len(sides(bench))


def run(bench: Bench, check: Check, progress: Progress) -> Verdict:
    if check.field == "return" and check.subject in ("target", "reference"):
        return _transferred(bench, check, check.subject, progress)  # type: ignore[arg-type]
    ours = skilled(bench, progress)
    ours.progress = progress
    if check.subject == "lockstep":
        verdict = rollout.run(ours, check, progress)
    else:
        step = ours.step(SOURCES[check.subject])
        if step is None:
            return said(check, INCONCLUSIVE, "no states of skilled play are shared by both sides")
        verdict = judged_step(ours, check, step, check.field)
    unlearned = _unlearned(bench, progress)
    return replace(verdict, word=INCONCLUSIVE, summary=unlearned) if verdict.word == EQUAL and unlearned else verdict


def place_of(bench: Bench, check: Check) -> tuple[Bench, str | None]:
    """The bench a check was made on, once it was run, and the source of its rows there, if it has one."""
    if check.subject in SOURCES or check.subject == "lockstep":
        return skilled(bench, bench.progress), SOURCES.get(check.subject)
    return bench, None


# -- returns -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Margin:
    """What is fixed before a policy is compared, from episodes on its own side alone.

    span    what was learned; ``noise``: how far two samples of its own returns may be apart
    value   largest gap that counts as equal; ``units``: pairs of episodes; ``low``, ``high``: returns are clipped to
    """

    span: float
    noise: float
    value: float
    units: int
    low: float
    high: float


@dataclass(frozen=True)
class Transfer:
    """One policy on both sides. ``events``: what betting on events of the return came to; ``gap``: on its mean."""

    word: Word
    text: str
    number: int
    random: float
    own: float
    margin: Margin | None = None
    gap: gap.Gap | None = None
    events: statistics.Comparison | None = None

    def as_json(self) -> dict[str, Any]:
        return plain(asdict(self))


def _transferred(bench: Bench, check: Check, side: SideName, progress: Progress) -> Verdict:
    school = pupils(bench, side, progress)
    seen: dict[int, dict[str, Any]] = {}
    found = []
    for pupil in school:

        def compared(sample: int, pupil: Pupil = pupil) -> Transfer:
            return _compared(bench, pupil, sample, seen, progress)

        reason = _not_learned(pupil, bench.sizes)
        found.append(_aside(pupil, reason) if reason else statistics.twice(compared))
    learned = [t for t in found if t.gap is not None]
    word: Word = EQUAL
    if not learned or any(t.word == INCONCLUSIVE for t in learned):
        word = INCONCLUSIVE
    if any(t.word == DIFFERENT for t in learned):
        word = DIFFERENT
    shown = next((t for t in learned if t.word == word), found[0])
    evidence = {
        "transitions": sum(int(s["transitions"]) for s in seen.values()),
        "episodes": sum(t.gap.units for t in learned if t.gap),
        "alpha": bench.share,
        "policies": [{**t.as_json(), "curve": _short(p.curve)} for p, t in zip(school, found, strict=True)],
    }
    if learned:
        worst = max(t.gap.detectable for t in learned if t.gap)
        evidence["detectable_effect"] = f"{worst:.3g} in the mean return, of {learned[0].margin.span:.4g} learned"  # type: ignore[union-attr]
        evidence |= _drawn(bench, check, school, seen)
    notes = tuple(f"policy {t.number}: {t.text}" for t in found if t is not shown)
    follows = _explained(bench, progress) if word == DIFFERENT else None
    return said(check, word, shown.text, notes, evidence, None, follows)


def _not_learned(pupil: Pupil, sizes: Sizes) -> str:
    """Why a policy's returns say nothing; "" if they do."""
    own, random = pupil.own, pupil.random
    if not np.isfinite([*own, *random]).all():
        return f"the policy's returns are not finite on the {pupil.side}"
    error = float(np.sqrt(own.var() / len(own) + random.var() / len(random)))
    if pupil.span > CLEARLY * error:
        return ""
    worth = f"{own.mean():.4g} on the {pupil.side}, where uniform play gets {random.mean():.4g}"
    after = f"after {sizes.training:,} steps; a larger profile trains longer"
    return f"the policy did not learn: it gets {worth}, {after}"


def margin_of(pupil: Pupil, sizes: Sizes) -> Margin:
    """Before any episode is played on both sides."""
    span, returns = pupil.span, np.concatenate([pupil.own, pupil.random])
    low, high = float(returns.min()) - BEYOND * span, float(returns.max()) + BEYOND * span
    deviation = float(pupil.own.std()) * 2**0.5
    wanted = sizes.gap * span
    most = int(np.clip(DEARER * sizes.most / max(pupil.length, 1.0), sizes.duels, LONGER * sizes.duels))
    units = LEAST
    while units < most and ABOVE * gap.half_width(deviation, high - low, units, 1e-3) > wanted:
        units = min(2 * units, most)
    noise = gap.half_width(deviation, high - low, units, 1e-3)
    return Margin(span, noise, min(max(wanted, ABOVE * noise), WIDEST * span), units, low, high)


def _aside(pupil: Pupil, reason: str) -> Transfer:
    return Transfer(INCONCLUSIVE, reason, pupil.number, float(pupil.random.mean()), float(pupil.own.mean()))


def _compared(bench: Bench, pupil: Pupil, sample: int, seen: dict[int, dict[str, Any]], progress: Progress) -> Transfer:
    """Play until a difference is proven, the gap is known to be small enough, or all planned episodes are played."""
    margin = margin_of(pupil, bench.sizes)
    grain = 1e-4 * max(float(np.abs(pupil.own).max()), 1e-6)
    bettor = statistics.begin(statistics.Plan(("return",), bench.share, 0.5, margin.units, resolution=grain))
    plan = gap.Plan(margin.low, margin.high, margin.value, bench.share)
    about = seen.setdefault(pupil.number, {"transitions": 0, "returns": [np.zeros(0), np.zeros(0)]})
    x, y = np.zeros(0), np.zeros(0)
    for number in range(margin.units // LANES):
        progress(f"L4: policy {pupil.number} on both sides", len(x), margin.units)
        now = wave(bench, pupil, sample, number)
        x, y = np.concatenate([x, now.ours]), np.concatenate([y, now.theirs])
        about["transitions"] += now.transitions
        bettor = statistics.update(bettor, now.ours[:, None], now.theirs[:, None])
        events, mean = statistics.judge(bettor), gap.judge(plan, x, y)
        if DIFFERENT in (events.word, mean.word) or (mean.word == EQUAL and len(x) >= LEAST):
            break
    about["returns"] = [np.concatenate(pair) for pair in zip(about["returns"], (x, y), strict=True)]
    word = DIFFERENT if DIFFERENT in (events.word, mean.word) else mean.word
    text = (
        f"trained on the {pupil.side}, the policy gets {mean.reference:.4g} on the reference and {mean.target:.4g} on "
        f"the target (uniform play {pupil.random.mean():.4g}): a gap of {mean.gap:.3g}, between {mean.low:.3g} and "
        f"{mean.high:.3g} (margin {margin.value:.3g}, {mean.units:,} episodes)"
    )
    if events.word == DIFFERENT:
        text += f"; {events.text}"
    if word == INCONCLUSIVE:
        text += f"; two samples of it on one side may be {margin.noise:.3g} apart; a larger profile plays more episodes"
    worth = float(pupil.random.mean()), float(pupil.own.mean())
    return Transfer(word, text, pupil.number, *worth, margin, mean, events)


def _short(curve: dict[str, np.ndarray]) -> dict[str, Any]:
    """A learning curve as a report can hold it."""
    at = np.unique(np.linspace(0, len(curve["steps"]) - 1, POINTS).astype(int))
    return {name: curve[name][at] for name in ("steps", "return", "length")}


def _drawn(bench: Bench, check: Check, school: Sequence[Pupil], seen: dict[int, dict[str, Any]]) -> dict[str, str]:
    """A picture beside the reports, where matplotlib is installed: {"plot": path}."""
    from pytest_envequiv.learning.plot import plot_transfer

    settings = bench.settings
    path = Path(settings.output) / "transfer" / f"{pair_name(settings.ref, settings.target)}-{check.subject}.png"
    pictures = [(p.curve, float(p.random.mean()), *seen[p.number]["returns"]) for p in school if p.number in seen]
    title = f"{settings.target} against {settings.ref}: policies trained on the {check.subject}"
    with contextlib.suppress(ImportError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_transfer(pictures, path, title)
        return {"plot": str(path)}
    return {}


# -- what explains them -----------------------------------------------------------------------------------------------


def _unlearned(bench: Bench, progress: Progress) -> str:
    """Why play of these policies is not skilled; "" if it is."""
    reasons = [_not_learned(pupil, bench.sizes) for pupil in school_of(bench, progress)]
    return reasons[0] if all(reasons) else ""


def _explained(bench: Bench, progress: Progress) -> str | None:
    """The check whose difference explains a gap in the returns, if the policies' own steps show one."""
    ours, listed = skilled(bench, progress), {c.subject for c in checks(bench)}
    for subject, source in SOURCES.items():
        step = ours.step(source) if subject in listed else None
        if step is not None and (root := _root(ours, step)):
            return f"L4-{subject}-{root}"
    if "lockstep" in listed:
        root = rollout.first_apart(ours)
        return f"L4-lockstep-{root}" if root else None
    return None


def _root(bench: Bench, step: Step) -> str | None:
    """The cause of what differs in most rows."""
    wrong = {name: int(found.rows.sum()) for name, found in step.found.items() if found.rows.any()}
    if not wrong:
        return None
    return roots(step.found, terminated(step.ours), bench.flow)[max(wrong, key=lambda name: wrong[name])]
