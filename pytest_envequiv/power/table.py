"""What the results of many mutants say: rates by level, kind and topic; survivors; blame. Pure functions of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_envequiv.power.measure import NAMED, Result
from pytest_envequiv.power.mutants import Mutant

Pairs = Sequence[tuple[Mutant, Result]]


@dataclass(frozen=True)
class Rate:
    """``part`` of ``whole``."""

    part: int
    whole: int

    @property
    def share(self) -> float:
        return self.part / self.whole if self.whole else float("nan")

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.part:,} of {self.whole:,})" if self.whole else "none"


APART = ("illegal", "unreached")  # differences no agent sees, as far as is known: listed apart


def detectable(result: Result) -> bool:
    """Killed, or shown by the oracle to differ where an agent can get. What differs only for actions outside of their
    space, or in made-up states that no play came to, or does not open, is listed apart."""
    return result.word == "killed" or (
        result.word == "survived" and result.detectable == "detectable" and result.where not in APART
    )


def killed(results: Iterable[Result]) -> Rate:
    mine = [r for r in results if detectable(r)]
    return Rate(sum(r.word == "killed" for r in mine), len(mine))


def by_level(results: Iterable[Result], level: str) -> Rate:
    """Of the detectable mutants that were asked at all levels."""
    mine = [r for r in results if detectable(r) and len(r.levels) == len(ALL)]
    return Rate(sum(r.levels[level] for r in mine), len(mine))


ALL = ("L1", "L2", "L3")


def by(pairs: Pairs, key: Callable[[Mutant], str]) -> dict[str, Rate]:
    names = sorted({key(m) for m, _ in pairs})
    return {name: killed(r for m, r in pairs if key(m) == name) for name in names}


def blamed(results: Iterable[Result], within: int) -> Rate:
    """Killed mutants whose own line is among the first ``within`` lines blamed."""
    mine = [r for r in results if r.word == "killed"]
    return Rate(sum(r.rank is not None and r.rank <= within for r in mine), len(mine))


def roots(results: Iterable[Result]) -> Rate:
    """Killed mutants whose first wrong field is known, and is the one the report names as the cause."""
    mine = [r for r in results if r.word == "killed" and r.truth]
    return Rate(sum(r.root in r.truth for r in mine), len(mine))


def doubtful(results: Iterable[Result]) -> list[Result]:
    """Killed mutants in which the oracle, where it was asked, finds no difference: alarms that may be false."""
    return [r for r in results if r.word == "killed" and r.detectable == "equivalent"]


def summary(pairs: Pairs) -> dict[str, Any]:
    """JSON-safe: all rates as {"part", "whole"}, times in seconds."""
    results = [r for _, r in pairs]
    times = [r.seconds for r in results if r.word == "killed"]
    asked = [r for r in results if r.detectable and r.word == "killed"]
    words = {word: sum(r.word == word for r in results) for word in ("killed", "survived", "broken", "hung", "error")}

    def rate(found: Rate) -> dict[str, int]:
        return {"part": found.part, "whole": found.whole}

    return {
        "mutants": len(results),
        **words,
        "equivalent": sum(r.word == "survived" and r.detectable == "equivalent" for r in results),
        **{f"{where}_only": sum(r.word == "survived" and r.where == where for r in results) for where in APART},
        "kill": rate(killed(results)),
        "levels": {level: rate(by_level(results, level)) for level in ALL},
        "kinds": {name: rate(found) for name, found in by(pairs, lambda m: m.kind).items()},
        "topics": {name: rate(found) for name, found in by(pairs, lambda m: m.topic).items()},
        "blame_first": rate(blamed(results, 1)),
        "blame_within": rate(blamed(results, NAMED)),
        "root": rate(roots(results)),
        "audited": len(asked),
        "doubtful": [r.id for r in doubtful(results)],
        "seconds_median": float(np.median(times)) if times else None,
        "seconds_p95": float(np.quantile(times, 0.95)) if times else None,
    }


def text(pairs: Pairs, idle: int, shown: int = 20) -> str:
    """The report for a terminal: rates, then survivors as diffs."""
    results = [r for _, r in pairs]
    told = summary(pairs)
    lines = [
        f"{told['mutants']:,} mutants: {told['killed']:,} killed, {told['survived']:,} survived, "
        f"{told['broken']:,} do not run, {told['hung']:,} hung; {idle:,} more lie in code that nothing runs",
        f"of the survivors {told['equivalent']:,} are equivalent as far as the oracle sees, "
        f"{told['illegal_only']:,} differ only for illegal actions, "
        f"{told['unreached_only']:,} only in made-up states that no play came to",
        "",
        f"detectable mutants killed  {killed(results)}",
        *(f"  by {level} alone              {by_level(results, level)}" for level in ALL),
        f"mutated line blamed first  {blamed(results, 1)}",
        f"  among the first {NAMED}        {blamed(results, NAMED)}",
        f"root field right           {roots(results)}",
        f"killed, yet equivalent to the oracle: {len(told['doubtful'])} of {told['audited']} that were audited",
    ]
    if told["seconds_median"] is not None:
        lines.append(
            f"time to detection          median {told['seconds_median']:.2f} s, 95 % within {told['seconds_p95']:.2f} s"
        )
    for title, groups in (("kind", by(pairs, lambda m: m.kind)), ("about", by(pairs, lambda m: m.topic))):
        lines += ["", title.ljust(20) + "killed"]
        lines += [f"{name:<20}{rate}" for name, rate in groups.items() if rate.whole]
    lines += [f"\nthe verifier failed on {r.id}: {r.text}" for r in results if r.word == "error"]
    left = [(m, r) for m, r in pairs if r.word == "survived" and (detectable(r) or r.where in APART)]
    left.sort(key=lambda pair: not detectable(pair[1]))
    for mutant, result in left[:shown]:
        lines += ["", f"survivor {mutant.id} ({mutant.topic}); the oracle{_only(result)}: {result.text}", mutant.diff()]
    if len(left) > shown:
        lines.append(f"and {len(left) - shown} more (in the JSON)")
    return "\n".join(lines)


def _only(result: Result) -> str:
    return {"illegal": ", for illegal actions only", "unreached": ", in made-up states only"}.get(result.where, "")


def plot(pairs: Pairs, title: str, path: str) -> None:
    """Kill rates by topic and level, and the time to detection, as a picture (needs matplotlib)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = [r for _, r in pairs]
    groups = {name: rate for name, rate in by(pairs, lambda m: m.topic).items() if rate.whole}
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    names = [f"{name} ({rate.whole})" for name, rate in groups.items()]
    left.barh(names, [100 * rate.share for rate in groups.values()], color="#4878a8")
    left.set(xlim=(0, 100), xlabel="detectable mutants killed, %", title="by what the bug is about")
    left.invert_yaxis()
    shares = [100 * by_level(results, level).share for level in ALL]
    middle.bar(ALL, shares, color="#4878a8", label="by this level alone")
    middle.axhline(100 * killed(results).share, color="#c05040", label="by the suite")
    middle.set(ylim=(0, 105), title="by level", ylabel="%")
    middle.legend(loc="lower center")
    times = np.sort([r.seconds for r in results if r.word == "killed"])
    right.plot(times, 100 * np.arange(1, len(times) + 1) / max(len(times), 1), color="#4878a8")
    right.set(
        xlabel="seconds from opening the target", ylabel="% of the killed", title="time to detection", ylim=(0, 105)
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
