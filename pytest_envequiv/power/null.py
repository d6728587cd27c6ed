"""The null arm: pairs that are equal, judged again and again with other seeds. Every DIFFERENT is a false alarm."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_envequiv.bench import Bench
from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import ALPHA, WITHOUT_LEARNING, Settings

# Subjects that decide by chance: at most ALPHA a run.
STATISTICAL = ("distribution", "episodes", "reset", "auto_reset", "target", "reference")


@dataclass(frozen=True)
class Null:
    """What came of ``runs`` runs of an equal pair.

    words         how many verdicts were EQUAL, DIFFERENT, INCONCLUSIVE
    deterministic runs with a false DIFFERENT in a check that does not decide by statistics: none is promised
    statistical   runs with one in a check that does: at most ALPHA of them are promised
    alarms        "seed check: summary" of each
    """

    ref: str
    target: str
    runs: int
    words: dict[str, int]
    deterministic: int
    statistical: int
    alarms: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        verdicts, unsure = sum(self.words.values()), self.words.get("INCONCLUSIVE", 0)
        lines = (
            f"{self.ref} against {self.target}: {self.runs} runs in {self.seconds:.0f} s, "
            f"{verdicts:,} verdicts, {unsure} INCONCLUSIVE;",
            f"  false alarms in {self.deterministic} runs where nothing is left to chance (promised: 0),",
            f"  in {self.statistical} where statistics decide (promised: {ALPHA:g} of the runs)",
        )
        return "\n".join(lines)


def null_runs(
    ref: str,
    target: str,
    seeds: Sequence[int],
    levels: Sequence[str] = WITHOUT_LEARNING,
    tell: Callable[[str], None] = print,
) -> Null:
    """The pair is opened once; everything that depends on the seed is drawn anew: play, states, actions, resets,
    episodes. ``tell`` hears of each alarm. Raises what opening a pair raises."""
    started = time.perf_counter()
    words: Counter[str] = Counter()
    loud: dict[str, set[int]] = {"deterministic": set(), "statistical": set()}
    alarms = []
    with tempfile.TemporaryDirectory() as output:
        judge = Judge(Settings(ref, target, tuple(levels), output=output))
        for seed in seeds:
            judge.settings = judge.pair.settings = replace(judge.settings, seed=seed)
            comparisons = judge.bench.comparisons
            judge.bench = Bench(judge.pair)
            judge.bench.comparisons = comparisons
            for check in judge.checks:
                verdict = judge.run(check.id)
                words[verdict.word] += 1
                if verdict.word == "DIFFERENT":
                    loud["statistical" if check.subject in STATISTICAL else "deterministic"].add(seed)
                    alarms.append(f"seed {seed} {check.id}: {verdict.summary}")
                    tell(alarms[-1])
        judge.close()
    return Null(
        ref,
        target,
        len(seeds),
        dict(words),
        len(loud["deterministic"]),
        len(loud["statistical"]),
        tuple(alarms),
        time.perf_counter() - started,
    )
